"""Names that only look like this machine's own are not, and no credential goes to them in clear."""

import httpx
import pytest
from darkbloom_client import Transport
from darkbloom_client.loopback import is_loopback

from tests.fakes.blind_mesh import BlindMesh


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.2", "::1", "[::1]", "0:0:0:0:0:0:0:1"]
)
def test_addresses_of_this_machine_are_its_own(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.",
        "localhost.evil.example",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "[127.evil.example]",
        "",
    ],
)
def test_a_name_that_begins_like_an_address_is_somebody_elses(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", ["mesh.test", "127.evil.example"])
def test_a_credential_does_not_leave_in_plaintext(method: str, host: str) -> None:
    mesh = BlindMesh()
    transport = Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport, headers={"authorization": "Bearer sk-db"}) as client:
        answer = client.request(method, f"http://{host}/v1/models")

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "plaintext_path")
    assert mesh.calls == []


def test_a_gateway_on_this_machine_may_be_asked_over_plain_http() -> None:
    mesh = BlindMesh()
    transport = Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport) as client:
        assert client.get("http://127.0.0.1:8080/v1/models").status_code == 200
