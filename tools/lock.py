"""Compile the pins, or `--check` them.

constraints.txt comes from requirements-dev.txt and the rooms; deploy/requirements/<room>.txt is the
part of it that one room's image needs, with hashes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
REQUIREMENTS = ROOT / "deploy" / "requirements"
UV = str(Path(sys.executable).with_name("uv"))
COMPILE = (
    *(UV, "pip", "compile", "--quiet", "--universal", "--python-version=3.11"),
    *("--no-annotate", "--no-header", "--no-emit-index-url"),
)

# Where our own distributions are, and which of them become images.
OURS = {
    "darkbloom-protos": "protos",
    **{
        f"darkbloom-{path.name}": f"services/{path.name}"
        for path in sorted((ROOT / "services").iterdir())
        if (path / "pyproject.toml").exists()
    },
    "darkbloom-provider": "provider",
    "darkbloom-local": "deploy/local",
}
IMAGES = ("gateway", "router", "billing", "attestation", "registry", "local")


def compiled() -> str:
    """Resolve, keeping what is pinned where the pins still fit, and return the file's text."""
    wanted = (ROOT / "requirements-dev.txt").read_text().splitlines()
    with tempfile.NamedTemporaryFile("w", dir=ROOT, prefix=".lock-", suffix=".in") as source:
        # Without the line that constrains by the very file that is being made.
        source.write("\n".join(line for line in wanted if not line.startswith("-c ")))
        source.flush()
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "constraints.txt"
            if CONSTRAINTS.exists():
                output.write_text(CONSTRAINTS.read_text())
            subprocess.run(
                [
                    *COMPILE,
                    "--constraint=pins.in",
                    f"--output-file={output}",
                    Path(source.name).name,
                ],
                cwd=ROOT,
                check=True,
            )
            lines = output.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("-e "))


def hashed(sources: list[str], constraints: Path) -> str:
    """Return pins with hashes of everything that `sources` need and that is not ours."""
    left_out = [f"--no-emit-package={name}" for name in OURS]
    made = subprocess.run(
        [*COMPILE, "--generate-hashes", f"--constraint={constraints}", *left_out, *sources],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout


def closure(name: str) -> list[str]:
    """Return the directories of a distribution of ours and of those that it needs, itself last."""
    project = tomllib.loads((ROOT / OURS[name] / "pyproject.toml").read_text())
    needed: list[str] = []
    for declared in project["project"].get("dependencies", ()):
        dependency = declared.partition("[")[0]
        if dependency in OURS:
            needed.extend(path for path in closure(dependency) if path not in needed)
    return [*needed, OURS[name]]


def images(constraints: str) -> dict[Path, str]:
    """Return the requirements of each image."""
    with tempfile.TemporaryDirectory() as scratch:
        pins = Path(scratch) / "constraints.txt"
        pins.write_text(constraints)
        backend = Path(scratch) / "build.in"
        backend.write_text("hatchling\n")
        made = {REQUIREMENTS / "build.txt": hashed([str(backend)], pins)}
        for room in IMAGES:
            ours = closure(f"darkbloom-{room}")
            text = hashed([f"{OURS[f'darkbloom-{room}']}/pyproject.toml"], pins)
            head = "# ours: " + " ".join(f"./{path}" for path in ours) + "\n"
            made[REQUIREMENTS / f"{room}.txt"] = head + text
    return made


def main() -> int:
    """Write the files, or with `--check` say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check

    text = compiled()
    wanted = {CONSTRAINTS: text, **images(text)}
    stale = [path for path, made in wanted.items() if not path.exists() or path.read_text() != made]
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        return 0
    for path in stale:
        print(f"stale: {path.relative_to(ROOT)}; run `make lock` and commit the result")
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
