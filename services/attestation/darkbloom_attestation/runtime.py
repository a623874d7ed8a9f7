"""Whether measured code is blessed (spec/security.md §6).

The blessed set is the union over the active releases, component by component: registering a release
can only widen it. An empty set blesses nothing.
"""

from collections.abc import Iterable

from darkbloom_attestation.model import CodeRelease, Measured, RuntimeFinding

_SHOWN = 4


def check_runtime(
    measured: Measured, releases: Iterable[CodeRelease]
) -> tuple[RuntimeFinding, ...]:
    """Return every component that is not blessed; none means that the code is known."""
    blessed = [release.measured for release in releases]
    rows = [
        ("runtime_hash", measured.runtime_hash, {one.runtime_hash for one in blessed}),
        ("python_hash", measured.python_hash, {one.python_hash for one in blessed}),
        *(
            (
                f"template:{name}",
                got,
                {one.template_hashes[name] for one in blessed if name in one.template_hashes},
            )
            for name, got in sorted(measured.template_hashes.items())
        ),
    ]

    return tuple(
        RuntimeFinding(component=component, expected=_show(known), got=got)
        for component, got, known in rows
        if not got or got not in known
    )


def _show(known: set[str]) -> str:
    shown = sorted(known)[:_SHOWN]
    more = len(known) - len(shown)

    return ",".join(shown) + (f" and {more} more" if more else "")
