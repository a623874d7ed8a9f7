"""The console's own arithmetic, run by Node beside the Python that it must agree with."""

import base64
import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.delta import Delta, ToolCallPart, encode
from darkbloom_edge.envelope import (
    ProviderSession,
    RequestHeader,
    SenderKeyMemory,
    new_key_pair,
)
from darkbloom_edge.merkle import Leaves, leaf_hash
from darkbloom_edge.signatures import P256Signer, domain_bytes, to_base64

JS = Path(str(files("darkbloom_gateway.console").joinpath("static", "js")))
# Node takes the library for a CommonJS module, which leaves no global behind.
_NACL = """
const { createRequire } = await import("node:module");
self.nacl = createRequire(import.meta.url)(new URL("$JS/../vendor/nacl-fast.js").pathname);
"""
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


def test_what_the_page_seals_the_machine_opens_and_the_other_way() -> None:
    machine = new_key_pair()
    ids = {"request_id": "req_" + "1" * 32, "attempt_id": "att_" + "2" * 32}
    header = RequestHeader(
        not_after_ms=1_900_000_000_000,
        prompt_bound=127,
        output_bound=4096,
        receipt_key=bytes(range(32)),
        verdict_id="ver_" + "3" * 32,
        sealed_to=2,
        edge_nonce=bytes(32),
        end_to_end=True,
    )
    fields = {name: getattr(header, name) for name in header.__struct_fields__[:8]}
    given = {name: to_base64(v) if isinstance(v, bytes) else v for name, v in fields.items()}
    sent = run(
        f"""
{_NACL}
const {{ from64, to64, utf8 }} = await import("$JS/bytes.js");
const {{ Session }} = await import("$JS/boxes.js");
const {{ packMap }} = await import("$JS/pack.js");
const session = new Session(from64(given.key), given.request_id, given.attempt_id);
const fields = given.fields;
for (const name of ["receipt_key", "edge_nonce"]) fields[name] = from64(fields[name]);
const sealed = session.seal(packMap(fields), utf8('{{"question": "ä"}}'));
show([to64(session.senderKey), to64(sealed)]);
""",
        {"key": to_base64(machine.public), "fields": given, **ids},
    )
    opened = ProviderSession.open_request(
        key_pair=machine,
        sender_key=base64.b64decode(sent[0]),
        payload=base64.b64decode(sent[1]),
        now_ms=header.not_after_ms - 1000,
        memory=SenderKeyMemory(),
        **ids,
    )

    assert opened.header == header
    assert opened.body.decode() == '{"question": "ä"}'


def test_a_box_that_is_altered_moved_repeated_or_cut_ends_the_answer() -> None:
    found = run(
        f"""
{_NACL}
const {{ fromHex, join }} = await import("$JS/bytes.js");
const {{ Session }} = await import("$JS/boxes.js");
const ids = ["req_" + "1".repeat(32), "att_" + "2".repeat(32)];
const machine = nacl.box.keyPair();
const prefix = nacl.randomBytes(16);
const count = (at) => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, at);
function chunks(session) {{
  const shared = nacl.box.before(session.senderKey, machine.secretKey);
  const make = (at, final, direction = 2) => {{
    const lead = Uint8Array.of(1, direction, final ? 1 : 0, 0, 0, 0, 0, 0);
    const head = join(lead, count(at), fromHex("1".repeat(32)), fromHex("2".repeat(32)));
    return nacl.box.after(join(head, Uint8Array.of(65 + at)), join(prefix, count(at)), shared);
  }};
  return [join(prefix, make(0, false)), make(1, false), make(2, true), make(0, false, 1)];
}}
function told(order) {{
  const session = new Session(machine.publicKey, ...ids);
  const made = chunks(session);
  const seen = [];
  try {{
    for (const pick of order) {{
      const [plain, final] = session.open(typeof pick === "number" ? made[pick] : pick(made));
      seen.push(String.fromCharCode(...plain) + (final ? "." : ""));
    }}
    return seen;
  }} catch (error) {{
    return [...seen, error.message];
  }}
}}
const altered = (made) => made[1].map((byte, at) => (at === 20 ? byte ^ 1 : byte));
const cut = (made) => made[1].slice(0, 10);
const reflected = (made) => join(prefix, made[3]);
const orders = [[0, 1, 2], [0, altered, 1], [0, 2], [0, cut], [reflected], [0, 1, 2, 2]];
show(orders.map(told));
"""
    )

    bad = "a box of the answer is not authentic"
    assert found == [
        ["A", "B", "C."],
        ["A", bad],
        ["A", bad],
        ["A", bad],
        ["a box of the answer is not the next one"],
        ["A", "B", "C.", "something follows the end of the answer"],
    ]


def test_deltas_are_read_as_they_were_written() -> None:
    deltas = [
        Delta(),
        Delta(text="ä" * 300, completion_tokens=70_000, prompt_tokens=200),
        Delta(reasoning="x", finish_reason="stop", edge_nonce=bytes(range(32))),
        Delta(tool_calls=(ToolCallPart(index=0, id="c", name="f", arguments="{}"),)),
    ]
    found = run(
        """
const { from64 } = await import("$JS/bytes.js");
const { unpack } = await import("$JS/pack.js");
const plain = (value) => value instanceof Uint8Array ? [...value] : value;
const read = given.good.map((text) => unpack(from64(text)).map(plain));
let refused = 0;
for (const text of given.bad) { try { unpack(from64(text)); } catch { refused += 1; } }
show([read, refused]);
""",
        {
            "good": [to_base64(bytes(encode(delta))) for delta in deltas],
            "bad": [
                to_base64(data) for data in (b"", b"\x92\x01", b"\x90\x00", b"\xdd\xff\xff\xff\xff")
            ],
        },
    )

    assert found[0] == [
        [],
        ["ä" * 300, "", [], 200, 70_000],
        ["", "x", [], 0, 0, 0, 0, "stop", None, None, list(range(32))],
        ["", "", [[0, "c", "f", "{}"]]],
    ]
    assert found[1] == 4


def test_an_answer_may_take_long_as_long_as_it_goes_on() -> None:
    found = run(
        """
import { createServer } from "node:http";
globalThis.sessionStorage = { getItem: () => null };
const { reach } = await import("$JS/api.js");
const server = createServer(async (asked, answer) => {
  if (asked.url === "/silent") return;
  answer.write("x");
  for (let piece = 0; piece < 8; piece += 1) {
    await new Promise((go) => setTimeout(go, 250));
    answer.write("x");
  }
  if (asked.url === "/stall") return;
  answer.end();
});
await new Promise((go) => server.listen(0, "127.0.0.1", go));
const base = `http://127.0.0.1:${server.address().port}`;
async function told(path, options) {
  try {
    return await (await reach(base + path, options)).text();
  } catch (error) {
    return error.message;
  }
}
const slowly = { patience: 1500, idle: 1500 };
show(await Promise.all([
  told("/steady", slowly),
  told("/steady", { patience: 1500 }),
  told("/stall", slowly),
  told("/silent", slowly),
]));
server.closeAllConnections();
server.close();
"""
    )

    late = "the gateway took too long"
    assert found == ["x" * 9, late, late, late]


def test_end_to_end_the_verified_verdict_says_how_far_a_machine_is_trusted() -> None:
    verdict = to_base64(json.dumps({"trust_level": "none"}).encode())
    found = run(
        """
globalThis.sessionStorage = { getItem: () => null };
const { levelOf } = await import("$JS/verify.js");
const headers = new Headers({ "x-provider-trust-level": "hardware" });
show(["open", "sealed", "end"].map((mode) => levelOf({ headers, receipt: given }, mode)[0]));
""",
        {"verdict": verdict},
    )

    assert found == ["hardware", "hardware", "none"]


def test_a_login_that_does_not_say_when_it_ends_is_over() -> None:
    found = run(
        """
const kept = new Map();
globalThis.sessionStorage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};
const { session } = await import("$JS/session.js");
const login = (claims) => `x.${btoa(JSON.stringify(claims))}.x`;
const now = Date.now() / 1000;
const asked = [{ exp: now + 60 }, { exp: now - 60 }, {}, { exp: "never" }, { exp: null }];
show(asked.map((claims) => {
  kept.set("darkbloom.login", login(claims));
  return [session.token() !== null, kept.size];
}));
"""
    )

    assert found == [[True, 1], [False, 0], [False, 0], [False, 0], [False, 0]]
