"""Reading the log, and what of it may leave this machine."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.account import Login, write_login
from darkbloom_provider.service import logbook
from darkbloom_provider.service.log_report import compose, filter_line

CANARY = "canary-7e4"


def event(msg: str, ago: timedelta = timedelta(0), **fields: object) -> bytes:
    at = (SystemClock().now() - ago).isoformat()
    return json.dumps({"ts": at, "level": "info", "msg": msg, **fields}).encode()


@pytest.fixture
def log(home):
    home.log.write_bytes(
        b"\n".join(
            (
                event("old", timedelta(days=3), reason="drain"),
                event("serving", timedelta(hours=2), pid=7, listeners={"x": "127.0.0.1:1"}),
                b"Traceback: a library wrote " + CANARY.encode(),
                event("link_ended", timedelta(minutes=1), reason=f"{CANARY} with spaces"),
                event("agent_broke", error_type="ValueError", frames=["a.py:3:run", CANARY + " x"]),
                b"",
            )
        )
    )
    return home.log


def test_logs_show_the_end_a_span_or_the_structured_lines(cli, log):
    _, out, _ = cli("logs")
    assert [line.split()[3] for line in out.splitlines() if "info" in line] == [
        *("old", "serving", "link_ended", "agent_broke"),
    ]
    _, out, _ = cli("logs", "--lines", "1")
    assert out.split()[3] == "agent_broke"
    assert "error_type=ValueError" in out
    _, out, _ = cli("logs", "--last", "30m", "--json")
    assert [json.loads(line)["msg"] for line in out.splitlines()] == ["link_ended", "agent_broke"]
    code, _, err = cli("logs", "--last", "soon")
    assert (code, "90s, 30m, 24h" in err) == (64, True)


def test_a_terminal_is_safe_from_what_a_log_holds(cli, log):
    log.write_bytes(b"\x1b[31mred\x07\n")
    _, out, _ = cli("logs")
    assert "\x1b" not in out
    assert "\x07" not in out


def test_no_log_is_said_and_no_failure(cli, home):
    code, out, err = cli("logs")
    assert (code, out) == (0, "")
    assert "Nothing was written" in err


def test_what_was_added_is_found_also_in_a_log_that_was_set_aside(tmp_path):
    path = tmp_path / "log"
    assert list(logbook.follow(path, 0)) == []
    path.write_bytes(b"one\ntwo\nhal")
    assert [line for line, _ in logbook.follow(path, 4)] == [b"two"]
    path.write_bytes(b"new\n")
    assert list(logbook.follow(path, 8)) == [(b"new", 4)]


def test_a_report_holds_named_fields_of_their_shape_and_nothing_else(cli, log):
    _, out, _ = cli("report", "--dry-run")
    head, *lines = [json.loads(line) for line in out.splitlines()]

    assert set(head) == {"report", "version", "platform"}
    assert [line["msg"] for line in lines] == ["serving", "link_ended", "agent_broke"]
    assert lines[0]["pid"] == 7
    assert "listeners" not in lines[0]
    assert "reason" not in lines[1]
    assert lines[2]["frames"] == ["a.py:3:run"]
    assert CANARY not in out


@pytest.mark.parametrize(
    "line",
    [
        b"plain text",
        b"[]",
        b'"text"',
        b'{"msg":"free text with spaces"}',
        b'{"text":"x"}',
        b'{"msg":3}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_has_no_event_does_not_leave(line):
    assert filter_line(line) is None


def test_a_report_has_a_ceiling_and_keeps_the_newest():
    lines = [event("tick", count=number) for number in range(2_000)]
    content = compose(lines, {}, limit=10_000)

    assert 9_000 < len(content) <= 10_000
    assert json.loads(content.splitlines()[-1])["count"] == 1_999


def test_a_report_goes_only_to_the_owners_gateway_and_its_id_is_printed(cli, home, log):
    code, _, err = cli("report")
    assert (code, "darkbloom login" in err) == (1, True)
    got: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, self.headers["authorization"], body))
            until = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
            answer = json.dumps({"id": "rep_1", "bytes": len(body), "expires_at": until}).encode()
            self.send_response(201)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        gateway = f"http://127.0.0.1:{server.server_port}"
        write_login(home.login, Login(gateway=gateway, account_id="acc_1", token="secret"))
        code, out, _ = cli("report", "--json")
        server.shutdown()
        serving.join()

    assert code == 0
    assert json.loads(out) == {"report_id": "rep_1", "bytes": len(got[0][2]), "lines": 3}
    assert got[0][:2] == ("/v1/provider/log-report", "Bearer secret")
    assert CANARY.encode() not in got[0][2]
