"""`docs/reference/prices.md`: how a price is made, and those that a fresh mesh has."""

from __future__ import annotations

from darkbloom_billing import pricing
from darkbloom_local import models

from tools.reference.markdown import NOTE, code, table

_MILLION = 1_000_000


def page() -> str:
    """Return the page."""
    fallback = pricing.fallback("any")
    builds = [models.smollm2_build(b""), models.scripted_build(b"")]
    rows = [
        (
            code(build.build.id),
            code(build.alias),
            str(build.input_micros),
            str(pricing.default_cache_read(build.input_micros)),
            str(build.output_micros),
            _dollars(build.output_micros),
        )
        for build in builds
    ]
    rows.append(
        (
            "a build without a row",
            "",
            str(fallback.input_micros),
            str(fallback.cache_read_micros),
            str(fallback.output_micros),
            _dollars(fallback.output_micros),
        )
    )
    return (
        "# Prices\n\n"
        f"{NOTE}\n\n"
        "Money is whole micro-USD (µUSD): 1,000,000 are one dollar. A price is a row of rates per 1,000,000 tokens. Prices of a running mesh: `GET /v1/pricing`.\n\n"
        "## What a request costs\n\n"
        "`new prompt tokens * input + cached prompt tokens * cache read + completion tokens * output`, each per million and rounded down by itself; at least the minimum charge. "
        "Nothing is charged where nothing was delivered. [money.md](../money.md) shows one request to the last µUSD.\n\n"
        + table(
            ("Rule", "Value"),
            [
                ("minimum charge of a request", f"{pricing.MINIMUM_CHARGE_MICROS} µUSD"),
                (
                    "minimum charge of a service account",
                    f"{pricing.WHOLESALE_MINIMUM_MICROS} µUSD",
                ),
                (
                    "cache read, where a row does not say",
                    f"half of input (input {_MILLION}: {pricing.default_cache_read(_MILLION)})",
                ),
                (
                    "a provider's own rate",
                    f"at most {pricing.MAX_OWN_RATIO} times the platform's",
                ),
                (
                    "platform fee",
                    "0 %, unless an operator has set one for the consumer; the rest is the machine's",
                ),
            ],
        )
        + "Which row counts, first to last: the serving account's own, the platform's, the fallback. The hold takes the worst case of prompt and output bound.\n\n"
        "## Rows that `make run` makes\n\n"
        "µUSD per 1,000,000 tokens. A row that is there already stays; `darkbloom-admin` sets others.\n\n"
        + table(
            ("Build", "Alias", "Input", "Cache read", "Output", "1M output tokens"), rows
        ).rstrip("\n")
        + "\n"
    )


def _dollars(micros: int) -> str:
    return f"${micros // _MILLION}.{micros % _MILLION // 10_000:02}"
