"""Certificates between rooms, over real TLS: who may call, and files that change under a lane."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_local.authority import TRUST_DOMAIN, LocalAuthority, replace
from darkbloom_mesh import telemetry
from darkbloom_mesh import tls as tls_module
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import CommonConfig, ConfigError, RoomConfig, load
from darkbloom_mesh.errors import ForbiddenError, MeshError, UnavailableError, from_rpc_error
from darkbloom_mesh.interceptors import CallGuard
from darkbloom_mesh.operator import operator_tls
from darkbloom_mesh.serve import Service
from darkbloom_mesh.testing import FakeClock, serve_ephemeral
from darkbloom_mesh.tls import TlsFiles, TlsPaths
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

ROOMS = ("gateway", "router", "billing")
CALLERS = {
    "/test.PageService/Call": frozenset({"gateway"}),
    "/test.PageService/Lane": frozenset({"gateway"}),
}
BOTH = PageRequest.FromString, PageRequest.SerializeToString


async def tell_serial(_request: PageRequest, context: Any) -> PageRequest:
    pem = context.auth_context()["x509_pem_cert"][0].decode()
    return PageRequest(page_token=pem)


async def echo(requests: AsyncIterator[PageRequest], _context: Any) -> AsyncIterator[PageRequest]:
    async for request in requests:
        yield request


def register(server: grpc.aio.Server) -> None:
    methods = {
        "Call": grpc.unary_unary_rpc_method_handler(tell_serial, *BOTH),
        "Lane": grpc.stream_stream_rpc_method_handler(echo, *BOTH),
        "Rowless": grpc.unary_unary_rpc_method_handler(tell_serial, *BOTH),
    }
    generic = grpc.method_handlers_generic_handler("test.PageService", methods)
    server.add_generic_rpc_handlers((generic,))


class Files:
    """Certificates of one mesh, and a clock that lets a test look at them again at once."""

    def __init__(self, directory: Path, authority: LocalAuthority | None = None) -> None:
        self.directory = directory
        self.clock = FakeClock(SystemClock().now())
        self.authority = authority or LocalAuthority(directory, self.clock)
        self.authority.issue(ROOMS)

    def paths(self, room: str) -> TlsPaths:
        return TlsPaths(
            certificate=self.directory / f"{room}.pem",
            key=self.directory / f"{room}.key",
            authorities=self.directory / "ca.pem",
            trust_domain=TRUST_DOMAIN,
        )

    def of(self, room: str) -> TlsFiles:
        return TlsFiles(self.paths(room), self.clock)

    def environment(self, room: str) -> dict[str, str]:
        return {
            "DARKBLOOM_TLS_CERT_FILE": str(self.directory / f"{room}.pem"),
            "DARKBLOOM_TLS_KEY_FILE": str(self.directory / f"{room}.key"),
            "DARKBLOOM_TLS_CA_FILE": str(self.directory / "ca.pem"),
        }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def served(files: Files, metrics: telemetry.Metrics | None = None) -> AsyncIterator[str]:
    tls = files.of("billing")
    guard = CallGuard(mesh_token=None, metrics=metrics, tls=tls, callers=CALLERS)
    async with serve_ephemeral(register, interceptors=[guard], tls=tls) as target:
        yield target


def dial(files: Files, target: str, room: str, peer: str = "billing") -> grpc.aio.Channel:
    return channel(target, mesh_token=None, room=room, tls=files.of(room), peer=peer)


async def ask(opened: grpc.aio.Channel, method: str = "Call") -> str:
    start: Callable[..., Any] = opened.unary_unary(
        f"/test.PageService/{method}",
        request_serializer=PageRequest.SerializeToString,
        response_deserializer=PageRequest.FromString,
    )
    try:
        answer: PageRequest = await start(PageRequest(), timeout=20)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return answer.page_token


async def test_a_room_of_the_row_is_served_and_another_is_refused_and_counted(
    files: Files,
) -> None:
    metrics = telemetry.Metrics(version="1")
    async with served(files, metrics) as target:
        async with dial(files, target, "gateway") as gateway:
            assert await ask(gateway) == (files.directory / "gateway.pem").read_text()
        async with dial(files, target, "router") as router:
            with pytest.raises(ForbiddenError, match="may not call"):
                await ask(router)

    labels = {"method": "test.PageService/Call", "caller": "router"}
    assert metrics.registry.get_sample_value("darkbloom_callers_refused_total", labels) == 1


async def test_a_method_without_a_row_is_nobodys(files: Files) -> None:
    async with served(files) as target, dial(files, target, "gateway") as gateway:
        with pytest.raises(ForbiddenError):
            await ask(gateway, "Rowless")


async def test_whoever_shows_no_certificate_or_one_of_strangers_is_not_heard(
    files: Files, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    strangers = Files(tmp_path / "elsewhere")
    believed = (strangers.directory / "ca.pem", files.directory / "ca.pem")
    replace(believed[0], b"".join(path.read_bytes() for path in believed))
    async with served(files) as target:
        async with dial(strangers, target, "gateway") as stranger:
            with pytest.raises(UnavailableError):
                await ask(stranger)
        async with channel(target, mesh_token=None, room="gateway") as plaintext:
            with pytest.raises(UnavailableError):
                await ask(plaintext)


async def test_our_own_authorities_must_have_signed_our_own_certificate(
    files: Files, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    strangers = Files(tmp_path / "elsewhere")
    replace(strangers.directory / "ca.pem", (files.directory / "ca.pem").read_bytes())
    with pytest.raises(ValueError, match="does not hold"):
        strangers.of("gateway")


async def test_an_authority_that_renews_itself_with_its_key_is_believed_before_and_after(
    files: Files, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    after = Files(later, files.authority.renewed(later))
    assert after.authority.pem != files.authority.pem
    # Pods hear of it hours apart: each knows one of the two roots, and both sides come first once.
    for server, caller in ((files, after), (after, files)):
        async with served(server) as target, dial(caller, target, "gateway") as opened:
            assert await ask(opened) == (caller.directory / "gateway.pem").read_text()

    # With another key the same name is a stranger's: that would have been the outage.
    (tmp_path / "other").mkdir()
    other = Files(tmp_path / "other")
    async with served(files) as target, dial(other, target, "gateway") as opened:
        with pytest.raises(UnavailableError):
            await ask(opened)


async def test_a_caller_hears_only_the_room_that_it_means(files: Files) -> None:
    async with served(files) as target, dial(files, target, "gateway", peer="router") as opened:
        with pytest.raises(UnavailableError):
            await ask(opened)


async def test_a_renewal_reaches_new_calls_and_drops_no_lane(files: Files) -> None:
    async with served(files) as target, dial(files, target, "gateway") as opened:
        before = await ask(opened)
        lane = opened.stream_stream(
            "/test.PageService/Lane",
            request_serializer=PageRequest.SerializeToString,
            response_deserializer=PageRequest.FromString,
        )()
        await lane.write(PageRequest(page_size=1))
        assert (await lane.read()).page_size == 1

        # A whole new authority: old connections could not be made again.
        files.authority = LocalAuthority(files.directory, files.clock)
        files.authority.issue(ROOMS)
        files.clock.jump(2)

        after = await ask(opened)
        assert after != before
        assert after == (files.directory / "gateway.pem").read_text()
        await lane.write(PageRequest(page_size=2))
        assert (await lane.read()).page_size == 2
        await lane.done_writing()
        assert await lane.read() is grpc.aio.EOF


async def test_a_renewal_half_written_changes_nothing_until_it_is_whole(files: Files) -> None:
    tls = files.of("gateway")
    before = tls.current()
    whole = (files.directory / "billing.key").read_bytes()
    kept = (files.directory / "gateway.key").read_bytes()

    replace(files.directory / "gateway.key", whole)
    files.clock.jump(2)
    assert tls.current() is before
    assert (tls.reloads, tls.refused) == (0, 1)

    replace(files.directory / "gateway.key", kept)
    files.clock.jump(2)
    assert tls.current().room == "gateway"
    assert tls.reloads == 1


async def test_files_that_vanish_leave_the_last_certificate(files: Files) -> None:
    tls = files.of("gateway")
    (files.directory / "gateway.pem").unlink()
    files.clock.jump(2)
    assert tls.current().room == "gateway"
    assert tls.refused == 1


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("gateway.pem", b"no certificate", "malformed"),
        ("gateway.key", b"no key", "malformed"),
        ("ca.pem", b"", "malformed"),
    ],
)
def test_files_that_are_none_stop_the_start(
    files: Files, file: str, content: bytes, said: str
) -> None:
    (files.directory / file).write_bytes(content)
    with pytest.raises(ConfigError, match=f"DARKBLOOM_TLS_.*{said}"):
        load(RoomConfig, "gateway", files.environment("gateway"))


def test_an_expired_certificate_stops_the_start(files: Files) -> None:
    files.clock.jump(31 * 86_400)
    with pytest.raises(ValueError, match="not valid now"):
        files.of("gateway")


def test_a_certificate_of_another_trust_domain_stops_the_start(files: Files) -> None:
    environ = files.environment("gateway") | {"DARKBLOOM_TRUST_DOMAIN": "example.org"}
    with pytest.raises(ConfigError, match="names no room of the trust domain"):
        load(RoomConfig, "gateway", environ)


def test_two_files_of_three_stop_the_start(files: Files) -> None:
    environ = files.environment("gateway")
    del environ["DARKBLOOM_TLS_CA_FILE"]
    with pytest.raises(ConfigError, match="set together"):
        load(RoomConfig, "gateway", environ | {"DARKBLOOM_ENV": "development"})


def test_production_starts_with_certificates_alone(files: Files) -> None:
    config = load(RoomConfig, "gateway", files.environment("gateway"))
    assert config.environment == "production"
    assert config.mesh_token() is None


async def test_a_room_refuses_to_start_as_another(files: Files) -> None:
    config = load(RoomConfig, "gateway", files.environment("billing"))
    with pytest.raises(ConfigError, match="the certificate names 'billing'"):
        async with Service(config, room="gateway", version="1", signals=False):
            pass


async def test_probes_without_tls_have_a_listener_with_health_alone(files: Files) -> None:
    environ = files.environment("billing") | {"DARKBLOOM_BILLING_HEALTH_LISTEN": "127.0.0.1:0"}
    config = load(RoomConfig, "billing", environ)
    async with Service(config, room="billing", version="1", signals=False) as service:
        inner = service.add_listener("grpc", "127.0.0.1:0", registrars=[register], mesh_token=None)
        waiting = service.spawn(served_until_stopped(service), name="wait")
        probed = service.listeners["health"]
        async with grpc.aio.insecure_channel(probed) as probe:
            request = health_pb2.HealthCheckRequest(service="liveness")
            said = await HealthStub(probe).Check(request, timeout=20, wait_for_ready=True)
            assert said.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await probe.unary_unary("/test.PageService/Call")(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with dial(files, inner, "router") as router:
            with pytest.raises(MeshError):
                await ask(router)
        expiry = service.metrics.registry.get_sample_value(
            "darkbloom_tls_certificate_expiry_seconds"
        )
        assert expiry == files.of("billing").current().not_after.timestamp()
        service.stop()
        await waiting


def test_files_that_change_between_reading_and_checking_are_not_taken(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, check = files.paths("gateway"), tls_module._shown_to_ourselves
    older = paths.certificate.read_bytes()
    files.authority.issue(["gateway"])
    newer = paths.certificate.read_bytes()
    assert newer != older
    paths.certificate.write_bytes(older)

    def renewed_meanwhile(asked: TlsPaths) -> dict[str, Any]:
        paths.certificate.write_bytes(newer)
        return check(asked)

    monkeypatch.setattr(tls_module, "_shown_to_ourselves", renewed_meanwhile)
    with pytest.raises(ValueError, match="changed while they were read"):
        tls_module.read(paths, files.clock.now())
    assert tls_module.read(paths, files.clock.now()).certificate == newer


async def served_until_stopped(service: Service) -> None:
    await service.wait()


def test_a_channel_with_a_certificate_says_whom_it_means(files: Files) -> None:
    with pytest.raises(ValueError, match="names its peer"):
        channel("127.0.0.1:1", mesh_token=None, room="gateway", tls=files.of("gateway"))


def test_a_command_line_takes_its_certificate_from_the_environment(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert operator_tls("127.0.0.1:7104") is None
    for name, value in files.environment("router").items():
        monkeypatch.setenv(name, value)
    tls = operator_tls("registry:7104")
    assert tls is not None
    assert tls.current().room == "router"
    assert "PRIVATE" not in repr(tls.current())


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:7104", True),
        ("localhost:7104", True),
        ("[::1]:7104", True),
        ("dns:///127.0.0.1:7104", True),
        ("ipv4:127.0.0.9:7104", True),
        ("unix:/run/registry", True),
        ("registry:7104", False),
        ("dns:///registry.example.org:7104", False),
        ("dns://127.0.0.1/registry:7104", False),
        ("10.0.0.7:7104", False),
        ("[2001:db8::1]:7104", False),
        ("localhost.example.org:7104", False),
        ("127.0.0.1.example.org:7104", False),
        ("", False),
    ],
)
def test_a_command_line_speaks_plaintext_to_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, target: str, local: bool
) -> None:
    if local:
        assert operator_tls(target) is None
        return
    with pytest.raises(ConfigError, match="not this machine"):
        operator_tls(target)
    monkeypatch.setenv("DARKBLOOM_PLAINTEXT", "true")
    assert operator_tls(target) is None


async def test_a_process_outside_the_mesh_has_no_certificate() -> None:
    config = CommonConfig(environment="development")
    async with Service(config, room="provider", version="1", signals=False) as service:
        assert service.tls is None
