"""The other side: LiteLLM's Python proxy in an environment of its own, and the upstream behind it.

As bare as it comes: one worker, no key, no callbacks, no database, uvloop and httptools, logs off.
"""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from darkbloom_local.environment import inherited
from darkbloom_local.errors import LocalError
from darkbloom_local.ports import free_ports, is_free
from darkbloom_local.process import Child, Command

from tests.bench import placement
from tests.bench.systems import HOST, System

VERSION = "1.93.0"
REQUIREMENTS = (f"litellm[proxy]=={VERSION}", "uvloop", "httptools")
_INSTALL_S = 900.0
_READY_S = 180.0
_MODEL = "bench"
# Without a handler the server does not even make the line of a request.
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"uvicorn.access": {"handlers": [], "propagate": False}},
}


class NoProxyError(Exception):
    """LiteLLM cannot be installed or does not start here."""


def install(home: Path, progress: Callable[[str], None]) -> Path:
    """Return the environment that has LiteLLM, made on first use.

    Raises:
        NoProxyError: The packages cannot be had.
    """
    environment = home / f"litellm-{VERSION}"
    ready = environment / ".ready"
    if ready.exists():
        return environment
    progress(f"installing litellm[proxy]=={VERSION} into {environment}, once")
    python = environment / "bin" / "python"
    with_pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", *REQUIREMENTS)
    uv = Path(sys.executable).with_name("uv")
    with_uv = (str(uv), "pip", "install", "--python", str(python), *REQUIREMENTS)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "install.log").open("wb") as log:
        if not _runs((sys.executable, "-m", "venv", "--clear", str(environment)), log.fileno()):
            raise NoProxyError(f"no virtual environment can be made, see {log.name}")
        # As everywhere here: uv where it works, pip where it does not.
        if not (uv.exists() and _runs(with_uv, log.fileno())) and not _runs(with_pip, log.fileno()):
            raise NoProxyError(f"the index does not give litellm, see {log.name}")
    ready.touch()
    return environment


@contextlib.contextmanager
def upstream(home: Path) -> Iterator[System]:
    """Run the scripted upstream for the length of the block."""
    (port,) = free_ports(1)
    core = placement.AROUND if placement.can_pin() else -1
    child = Child.start(
        Command(
            name="upstream",
            argv=(sys.executable, "-m", "tests.bench.upstream", str(port), str(core)),
            env=inherited(),
            log=home / "upstream.log",
        )
    )
    try:
        if not child.wait_until(lambda: not is_free(port), _READY_S):
            raise LocalError("the scripted upstream did not start")
        yield System(name="upstream", port=port, api_key="none", model=_MODEL)
    finally:
        child.stop(5.0)


@contextlib.contextmanager
def litellm(environment: Path, home: Path, behind: System) -> Iterator[System]:
    """Run LiteLLM for the length of the block.

    Raises:
        NoProxyError: It does not start.
    """
    (port,) = free_ports(1)
    config = home / "litellm.json"
    config.write_text(json.dumps(_configuration(behind)))
    logging = home / "litellm-logging.json"
    logging.write_text(json.dumps(_LOGGING))
    log = home / "litellm.log"
    log.unlink(missing_ok=True)
    argv = (
        *(str(environment / "bin" / "litellm"), "--config", str(config)),
        *("--host", HOST, "--port", str(port), "--num_workers", "1"),
        *("--log_config", str(logging)),
    )
    settings = {
        # Without it the start fetches a price list from the internet.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_TELEMETRY": "False",
    }
    child = Child.start(Command(name="litellm", argv=argv, env=inherited() | settings, log=log))
    try:
        try:
            started = child.wait_until(lambda: _answers(port, "/health/liveliness"), _READY_S)
        except LocalError as error:
            raise NoProxyError(str(error)) from None
        if not started:
            raise NoProxyError(f"litellm is not ready after {_READY_S:.0f} s, see {log}")
        if placement.can_pin():
            placement.pin([child.pid], placement.UNDER_TEST)
        yield System(
            name="litellm",
            port=port,
            api_key="none",
            model=_MODEL,
            processes={"litellm": child.pid},
        )
    finally:
        child.stop(10.0)


def _configuration(behind: System) -> dict[str, object]:
    parameters = {
        "model": f"openai/{_MODEL}",
        "api_base": f"http://{HOST}:{behind.port}/v1",
        "api_key": behind.api_key,
    }
    return {
        "model_list": [{"model_name": _MODEL, "litellm_params": parameters}],
        "litellm_settings": {"callbacks": []},
    }


def _runs(argv: tuple[str, ...], log: int) -> bool:
    try:
        done = subprocess.run(
            argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=_INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _answers(port: int, path: str) -> bool:
    address = f"http://{HOST}:{port}{path}"
    try:
        with urllib.request.urlopen(address, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
