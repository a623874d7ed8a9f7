"""The console's own arithmetic, run by Node beside the Python that it must agree with."""

import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.merkle import Leaves, leaf_hash
from darkbloom_edge.signatures import P256Signer, domain_bytes, to_base64

JS = Path(str(files("darkbloom_gateway.console").joinpath("static", "js")))
pytestmark = pytest.mark.tool("node")


def run(code: str, given: Any = None) -> Any:
    """Run a module that reads `given` and gives its result to `show`."""
    module = f"""
import {{ readFileSync }} from "node:fs";
globalThis.self = globalThis;
const given = JSON.parse(readFileSync(0, "utf8"));
const show = (value) => process.stdout.write(JSON.stringify(value));
{code.replace("$JS", JS.as_uri())}
"""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", module],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_money_is_shown_and_read_exactly() -> None:
    shown = run(
        """
const { dollars, micros } = await import("$JS/format.js");
show([given.shown.map(dollars), given.read.map(micros)]);
""",
        {
            "shown": [0, 1, 10, 1_500_000, -250_000, 12_500_000, 1_234_567_890_123],
            "read": ["0", "1.5", " 12.50 ", "0.000001", "1.0000001", "-1", "1e3", "", "0x10"],
        },
    )

    assert shown[0] == [
        "$0.00",
        "$0.000001",
        "$0.00001",
        "$1.50",
        "−$0.25",  # noqa: RUF001 - a minus as printers set it
        "$12.50",
        "$1,234,567.890123",
    ]
    assert shown[1] == [0, 1_500_000, 12_500_000, 1, None, None, None, None, None]


def test_proofs_of_the_log_are_judged_alike() -> None:
    entries = [bytes([number]) for number in range(13)]
    tree = Leaves([leaf_hash(entry) for entry in entries])
    inclusion = [
        {
            "leaf": leaf_hash(entry).hex(),
            "index": index,
            "path": [one.hex() for one in tree.inclusion(index)],
        }
        for index, entry in enumerate(entries)
    ]
    growth = [
        {
            "size": size,
            "root": Leaves([leaf_hash(entry) for entry in entries[:size]]).root.hex(),
            "path": [one.hex() for one in tree.consistency(size)],
        }
        for size in range(1, 14)
    ]
    found = run(
        """
const { fromHex } = await import("$JS/bytes.js");
const { grown, included } = await import("$JS/merkle.js");
const [root, other] = [fromHex(given.root), fromHex("00".repeat(32))];
const judged = [];
for (const one of given.inclusion) {
  const path = one.path.map(fromHex);
  judged.push(await included(fromHex(one.leaf), one.index, 13, path, root));
  judged.push(!(await included(fromHex(one.leaf), one.index, 13, path, other)));
  judged.push(!(await included(other, one.index, 13, path, root)));
  judged.push(!(await included(fromHex(one.leaf), one.index, 13, path.slice(1), root)));
}
for (const one of given.growth) {
  const path = one.path.map(fromHex);
  judged.push(await grown(one.size, 13, fromHex(one.root), root, path));
  judged.push(!(await grown(one.size, 13, other, root, path)));
  judged.push(!(await grown(one.size, 13, fromHex(one.root), other, path)));
}
show(judged);
""",
        {"root": tree.root.hex(), "inclusion": inclusion, "growth": growth},
    )

    assert len(found) == 13 * 7
    assert all(found)


def test_a_machines_signature_is_judged_alike() -> None:
    # Signatures in DER have seven or eight lengths; enough of them meets each.
    signer = P256Signer(bytes(31) + b"\x07")
    given = [
        {"document": to_base64(document), "signature": to_base64(signer.sign("terminal", document))}
        for document in (bytes([number]) * 9 for number in range(40))
    ]
    assert domain_bytes("terminal", b"x") == b"darkbloom:terminal:v1\0x"
    found = run(
        """
const { domain, from64, p256 } = await import("$JS/bytes.js");
const judged = [];
for (const { document, signature } of given.rows) {
  const bytes = domain("terminal", from64(document));
  judged.push(await p256(from64(given.key), from64(signature), bytes));
  const other = domain("verdict", from64(document));
  judged.push(!(await p256(from64(given.key), from64(signature), other)));
}
let refused = 0;
for (const broken of ["", "30", "3000", "300402010102020101", "3006020101020101ff"]) {
  const bytes = Uint8Array.from(broken.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  try { await p256(from64(given.key), bytes, new Uint8Array(1)); } catch { refused += 1; }
}
show([judged, refused]);
""",
        {"key": to_base64(signer.public), "rows": given},
    )

    assert len(found[0]) == 80
    assert all(found[0])
    assert found[1] == 5


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_the_same_however_they_arrive(size: int) -> None:
    stream = ': hello\n\ndata: {"a": "ä"}\n\nevent: x\ndata: one\ndata: two\n\ndata: [DONE]\n\n'
    found = run(
        """
const { events } = await import("$JS/stream.js");
const bytes = new TextEncoder().encode(given.stream);
const body = new ReadableStream({ start(control) {
  for (let at = 0; at < bytes.length; at += given.size) {
    control.enqueue(bytes.slice(at, at + given.size));
  }
  control.close();
} });
const seen = [];
for await (const data of events(body)) seen.push(data);
show(seen);
""",
        {"stream": stream, "size": size},
    )

    assert found == ['{"a": "ä"}', "one\ntwo", "[DONE]"]
