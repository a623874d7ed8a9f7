"""Both OpenAPI documents, ours and OpenAI's, asked with requests that schemathesis makes up.

`make schemathesis` asks each operation far more often than the suite does.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio
import requests
from schemathesis import Case, GenerationMode, Response

from tests.component.gateway.conformance import PAGE, check_answer, document, events
from tests.component.gateway.fuzzing import Tally, operations, probe, schemes
from tests.component.gateway.market import Market, market
from tests.stores import Postgres

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = int(os.environ.get("DARKBLOOM_SCHEMATHESIS_EXAMPLES", "2"))  # noqa: TID251 - a test's
DATA = Path(os.environ.get("DARKBLOOM_TEST_DATA", "../shared/data"))  # noqa: TID251 - a test's
SUBSET = DATA / "openai/openapi-subset.json"
TAGS = [tag["name"] for tag in document()["tags"]]
REAL = {"model_id": "tiny", "model": "tiny"}
CLOSING = "DELETE /v1/me"
DRAIN = "/v1/admin/drain"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(
    cluster: Postgres,
    template: str,
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Market]:
    # A drain is of every gateway at one database of Valkey; other tests have gateways too.
    alone = f"{valkey_url}?db=1"
    with cluster.database(template) as url:
        async with market(tmp_path_factory.mktemp("market"), url, alone) as found:
            yield found


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


@pytest.mark.parametrize("tag", TAGS)
async def test_whatever_comes_gets_an_answer_that_the_document_knows(
    place: Market, session: requests.Session, tag: str
) -> None:
    tally, credentials = Tally(), dict[str, dict[str, str]]()
    for operation in operations(json.loads(PAGE.read_text()), tag):
        for scheme in schemes(operation)[:1]:
            if scheme not in credentials or operation.label == CLOSING:
                credentials[scheme] = await place.credential(scheme)
        headers = {}
        for scheme in schemes(operation)[:1]:
            headers = credentials[scheme]
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not operation.body and not operation.query:
                continue
            await asyncio.to_thread(
                probe,
                operation,
                base_url=place.mesh.url,
                session=session,
                headers=headers,
                examples=EXAMPLES,
                tally=tally,
                mode=mode,
                known=REAL,
                media_type="application/json" if tag == "Inference" else None,
            )
        if operation.label == CLOSING:
            credentials.clear()
        if operation.path == DRAIN:
            opened = await place.mesh.http.post(DRAIN, json={"draining": False}, headers=headers)
            assert opened.json()["draining"] is False
        assert tally.statuses(operation.label), operation.label


def filled(node: Any) -> Any:
    """Return OpenAI's text with `nullable` as JSON Schema says it; see the data's README."""
    if isinstance(node, list):
        return [filled(child) for child in node]
    if not isinstance(node, dict):
        return node
    found = {name: filled(child) for name, child in node.items() if name != "nullable"}
    return {"anyOf": [found, {"type": "null"}]} if node.get("nullable") is True else found


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    if not SUBSET.exists():
        pytest.skip("no OpenAI document here: DARKBLOOM_TEST_DATA says where the data is")
    found = filled(json.loads(SUBSET.read_text()))
    assert isinstance(found, dict)
    return found


class Judge:
    """Holds a success to OpenAI's schemas, and anything else to our document."""

    def __init__(self, theirs: dict[str, Any]) -> None:
        self._theirs = theirs
        self._validators: dict[str, jsonschema_rs.Validator] = {}
        self.held = 0

    def __call__(self, case: Case, response: Response) -> None:
        self.answer(
            case.operation.method.upper(),
            case.operation.path,
            response.status_code,
            {name: values[0] for name, values in response.headers.items()},
            response.content,
            f"/v1{case.formatted_path}",
        )

    def answer(
        self,
        method: str,
        path: str,
        status: int,
        headers: dict[str, str],
        content: bytes,
        address: str,
    ) -> None:
        assert status < 500, content
        check_answer(method, address, status, headers, content)
        if status != requests.codes.ok:
            return
        kinds = self._theirs["paths"][path][method.lower()]["responses"]["200"]["content"]
        media_type = headers["content-type"].partition(";")[0]
        if media_type == "application/json":
            self._hold(json.loads(content), kinds[media_type]["schema"])
            return
        # OpenAI describes the events of two of its three streams.
        if media_type in kinds:
            for event in events(content):
                self._hold(event, kinds[media_type]["schema"])

    def _hold(self, found: Any, schema: dict[str, Any]) -> None:
        response = found.get("response", {})
        if response.get("usage", ...) is None:
            # As OpenAI's own streams begin, whatever its document says.
            del response["usage"]
        name = json.dumps(schema)
        if name not in self._validators:
            whole = {**schema, "components": self._theirs["components"]}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole)
        faults = [error.message for error in self._validators[name].iter_errors(found)]
        assert not faults, f"{json.dumps(found)[:800]}: {faults[:3]}"
        self.held += 1


async def test_what_openai_documents_gets_an_answer_of_its_shape_or_a_documented_refusal(
    place: Market, session: requests.Session, theirs: dict[str, Any]
) -> None:
    tally, judge = Tally(), Judge(theirs)
    headers = await place.credential("api_key")
    for operation in operations(theirs):
        await asyncio.to_thread(
            probe,
            operation,
            base_url=f"{place.mesh.url}/v1",
            session=session,
            headers=headers,
            examples=EXAMPLES,
            tally=tally,
            judge=judge,
            known=REAL,
        )
    assert judge.held


MESSAGES = [{"role": "user", "content": "hi"}]
LOOK = {"type": "object", "properties": {"at": {"type": "string"}}}
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("/chat/completions", {"messages": MESSAGES}),
    ("/chat/completions", {"messages": MESSAGES, "n": 2}),
    ("/chat/completions", {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2}),
    (
        "/chat/completions",
        {
            "messages": MESSAGES,
            "tools": [{"type": "function", "function": {"name": "look", "parameters": LOOK}}],
        },
    ),
    ("/completions", {"prompt": "hi"}),
    ("/responses", {"input": "hi"}),
    ("/responses", {"input": [{"role": "user", "content": "hi"}], "instructions": "be brief"}),
    ("/responses", {"input": "hi", "text": {"format": {"type": "text"}}, "metadata": {"a": "b"}}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", range(len(PLAIN)))
async def test_an_ordinary_answer_has_the_shape_that_openai_documents(
    place: Market, session: requests.Session, theirs: dict[str, Any], number: int, stream: bool
) -> None:
    path, body = PLAIN[number]
    more = {"stream_options": {"include_usage": True}} if path == "/chat/completions" else {}
    asked = {"model": "tiny", **body, **({"stream": True, **more} if stream else {})}
    headers = await place.credential("api_key")

    given = await asyncio.to_thread(
        session.post, f"{place.mesh.url}/v1{path}", json=asked, headers=headers, timeout=60
    )

    judge = Judge(theirs)
    found = {name.lower(): value for name, value in given.headers.items()}
    judge.answer("POST", path, given.status_code, found, given.content, f"/v1{path}")
    # The scripted build has no logprobs; the stream of completions is the one not described.
    expected = 400 if "logprobs" in body else 200
    assert given.status_code == expected, given.text
    described = expected == requests.codes.ok and not (stream and path == "/completions")
    assert bool(judge.held) == described
