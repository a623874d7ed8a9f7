"""A counted prompt is never above its bound when the provider renders and counts it."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest
from darkbloom_edge.dialects.chat import lower
from darkbloom_edge.manifest import store_name
from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.install import Install, InstallVersion, Manifests, SignedManifest
from darkbloom_gateway.model import KeyRecord, Plan
from darkbloom_gateway.planning import MAX_COUNTED_BYTES, make_plan
from darkbloom_gateway.tiers import Tier, Tiers
from darkbloom_gateway.tokenizers import Tokenizers
from darkbloom_mesh.testing import FakeClock, settle
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.tokenizers import MARKERS, byte_level, manifest_of

CHATML = jinja2.Template(
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
MADE = byte_level("the quick brown fox, the lazy dog\n\n  and numbers 123 456")
NATIVE = Tokenizer.from_str(MADE)
VERSION = InstallVersion("v1", "", "", 0, 1, ())
BUILD = Build("b", install=Install("", "", 0, (), "active", "v1", (VERSION,)))
CATALOG = Catalog(1, {"b": BUILD}, {})
TIERS = Tiers(account=Tier(None, None, None), service=Tier(None, None, None))

text = st.lists(
    st.sampled_from(["the ", "quick", "fox", "\n", "  ", "1", "é", "😀", *MARKERS, "."])
    | st.text(max_size=4),
    max_size=40,
).map("".join)


class Registry:
    async def manifest(self, build: str, version: str) -> SignedManifest:
        return SignedManifest(manifest_of(build, version, MADE), b"", "")

    async def manifest_keys(self) -> dict[str, bytes]:
        return {}


async def known(directory: Path) -> Tokenizers:
    """Return the tokenizers after their first look."""
    folder = directory / store_name("b") / "v1"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(MADE)
    clock = FakeClock()
    found = Tokenizers(directory, Manifests(Registry(), clock), lambda: CATALOG, clock)
    looking = asyncio.ensure_future(found.run())
    async with asyncio.timeout(30):
        while not found.any:
            await settle()
    looking.cancel()
    await asyncio.wait({looking})
    return found


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return asyncio.run(known(tmp_path_factory.mktemp("store")))


def plan(turns: list[tuple[str, str]], tokenizers: Tokenizers | None) -> Plan:
    messages = [{"role": role, "content": content} for role, content in turns]
    lowered = lower(json.dumps({"model": "b", "messages": messages}).encode())
    return make_plan(
        lowered,
        KeyRecord("k", "a"),
        CATALOG,
        TIERS,
        default_bound=64,
        now=NOW,
        tokenizers=tokenizers,
    )


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), text), min_size=1, max_size=6
    )
)
def test_a_rendered_prompt_stays_within_its_counted_bound(
    tokenizers: Tokenizers, turns: list[tuple[str, str]]
) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    rendered = CHATML.render(messages=messages)
    counted = len(NATIVE.encode(rendered, add_special_tokens=False).ids)

    close = plan(turns, tokenizers)

    assert close.counted
    assert counted <= close.prompt_bound <= plan(turns, None).prompt_bound
    assert 1 <= close.prompt_estimate <= close.prompt_bound


def test_a_long_text_is_held_for_at_little_more_than_its_tokens(tokenizers: Tokenizers) -> None:
    turns = [("user", "the quick brown fox, the lazy dog" * 200)]
    counted = len(NATIVE.encode(turns[0][1], add_special_tokens=False).ids)

    close, wide = plan(turns, tokenizers), plan(turns, None)

    assert close.prompt_bound < 1.1 * counted + 160
    assert wide.prompt_bound > 3 * close.prompt_bound


def test_a_text_too_long_to_be_counted_is_held_for_by_its_bytes(tokenizers: Tokenizers) -> None:
    long = "é" * (MAX_COUNTED_BYTES // 2)

    assert plan([("user", long)], tokenizers).counted
    for turns in ([("user", long + "x")], [("user", long), ("user", "x")]):
        assert plan(turns, tokenizers) == plan(turns, None)
