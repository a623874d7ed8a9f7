"""What is on disk: settings, identity, models and their templates, and the ports to bind."""

import errno
import json
import socket
from collections.abc import Iterator
from typing import Final

from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError

from darkbloom_provider.checks.model import Check, Scene
from darkbloom_provider.device_key import open_device_key
from darkbloom_provider.engines import DEVELOPMENT_NAMESPACE
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.errors import ModelError
from darkbloom_provider.models.store import ModelStore, StoredModel

HASH_BUDGET_S: Final = 5.0
"""How long weights are hashed here; what is left over is for `darkbloom models verify`."""
_MAX_TEMPLATE_BYTES: Final = 4 << 20
_CONVERSATION: Final = (
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "once more"},
)


class _TimeIsUpError(Exception):
    """Hashing goes on elsewhere."""


def checks(scene: Scene) -> Iterator[Check]:
    """Look at files and ports."""
    yield _config(scene)
    yield _identity(scene)
    yield _models(scene)
    if served := wanted(scene):
        yield _integrity(scene, served)
        yield _templates(served)
    yield _port(scene)


def wanted(scene: Scene) -> list[StoredModel]:
    """Return the newest version of each stored build that this configuration would serve."""
    # A running agent was perhaps told by a flag.
    engine = scene.snapshot.engine if scene.snapshot is not None else scene.config.engine
    scripted = engine == "scripted"
    newest: dict[str, StoredModel] = {}
    for one in scene.stored:
        if one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE) == scripted:
            newest.setdefault(one.manifest.model_id, one)
    chosen = scene.config.models
    return [one for name, one in newest.items() if not chosen or name in chosen]


def _config(scene: Scene) -> Check:
    settings = scene.settings
    where = str(settings.file.path)
    wrong = [*settings.problems, *settings.file.unknown]
    if wrong:
        return Check(
            name="config",
            area="settings",
            result="fail",
            detail=f"{where}: {'; '.join(map(str, wrong))}",
            fix="correct these lines; `darkbloom config show` prints what holds meanwhile",
        )
    if settings.file.retired:
        return Check(
            name="config",
            area="settings",
            result="warn",
            detail=f"{where}: {'; '.join(map(str, settings.file.retired))}",
            fix="; ".join(f"`darkbloom config unset {one.key}`" for one in settings.file.retired),
        )
    detail = where if settings.file.exists else f"{where} is not there: defaults hold"
    return Check(name="config", area="settings", result="pass", detail=detail)


def _identity(scene: Scene) -> Check:
    config = scene.config
    path = config.folders.identity_key
    if config.keychain_group is None and not path.exists():
        return Check(
            name="active se key",
            area="attestation key",
            result="warn",
            detail="no identity yet",
            fix="run `darkbloom start` once, it makes one",
        )
    try:
        key = open_device_key(config)
    except (ProviderError, OSError) as error:
        fix = error.remedy if isinstance(error, ProviderError) else "check the file's owner"
        return Check(
            name="active se key",
            area="attestation key",
            result="fail",
            detail=str(error),
            fix=fix or f"check {path}",
        )
    where = "in the Secure Enclave" if key.secure_enclave else f"software key in {path}"
    return Check(name="active se key", area="attestation key", result="pass", detail=where)


def _models(scene: Scene) -> Check:
    root = scene.config.store_root
    here = {one.manifest.model_id for one in scene.stored}
    missing = [name for name in scene.config.models if name not in here]
    if missing:
        return Check(
            name="local mlx models",
            area="models",
            result="fail",
            detail=f"chosen, but not in {root}: {', '.join(missing)}",
            fix="; ".join(f"`darkbloom models download {name}`" for name in missing),
        )
    served = wanted(scene)
    if not served:
        return Check(
            name="local mlx models",
            area="models",
            result="fail",
            detail=f"none in {root}",
            fix="`darkbloom models catalog` shows what fits, "
            "`darkbloom models download ORG/NAME` fetches one",
        )
    names = ", ".join(sorted(one.manifest.model_id for one in served))
    return Check(name="local mlx models", area="models", result="pass", detail=names)


def _integrity(scene: Scene, served: list[StoredModel]) -> Check:
    store = ModelStore(scene.config.store_root)
    end = scene.clock.monotonic() + HASH_BUDGET_S
    broken, unread = {}, []

    def in_time(_done: int) -> None:
        if scene.clock.monotonic() > end:
            raise _TimeIsUpError

    for one in sorted(served, key=lambda found: found.manifest.total_size_bytes):
        name = one.manifest.model_id
        try:
            store.verify(one, in_time)
        except ModelError as error:
            broken[name] = str(error)
        except OSError as error:
            broken[name] = error.strerror or type(error).__name__
        except _TimeIsUpError:
            unread.append(name)
    if broken:
        return Check(
            name="model integrity",
            area="models",
            result="fail",
            detail="; ".join(f"{name}: {why}" for name, why in broken.items()),
            fix="; ".join(
                f"`darkbloom models remove {name} --force`, then "
                f"`darkbloom models download {name}` or import it again"
                for name in broken
            ),
        )
    detail = f"{len(served) - len(unread)} of {len(served)} hashed, as their manifests say"
    if unread:
        detail += f"; too large to hash here: {', '.join(unread)} (`darkbloom models verify`)"
    return Check(name="model integrity", area="models", result="pass", detail=detail)


def _templates(served: list[StoredModel]) -> Check:
    broken = {}
    for one in served:
        if one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE):
            continue
        problem = _template_problem(one)
        if problem:
            broken[one.manifest.model_id] = problem
    return Check(
        name="template render",
        area="models",
        result="fail" if broken else "pass",
        detail="; ".join(f"{name}: {why}" for name, why in broken.items())
        or "every chat template renders",
        fix="serve a build of the catalog, its templates are tested; "
        f"`darkbloom models remove {next(iter(broken))}` takes this one away"
        if broken
        else "",
    )


def _template_problem(one: StoredModel) -> str:
    try:
        source = _template_source(one)
        if source is None:
            return "no chat template (chat_template.jinja)"
        ChatTemplate(source).render(_CONVERSATION, variables={"bos_token": "", "eos_token": ""})
    except TemplateError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"its template cannot be read ({type(error).__name__})"
    return ""


def _template_source(one: StoredModel) -> str | None:
    path = one.directory / "chat_template.jinja"
    if path.exists():
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_TEMPLATE_BYTES)
    with (one.directory / "tokenizer_config.json").open("rb") as raw:
        found = json.loads(raw.read(_MAX_TEMPLATE_BYTES))
    source = found.get("chat_template") if isinstance(found, dict) else None
    return source if isinstance(source, str) else None


def _port(scene: Scene) -> Check:
    """Try to bind what the agent would bind; while it runs, it has bound it itself."""
    host, _, text = scene.config.metrics_listen.rpartition(":")
    port = int(text) if text.isdecimal() else 0
    fine = Check(name="port", area="agent", result="pass", detail="none is needed from outside")
    if scene.snapshot is not None or port == 0:
        return fine
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return Check(
            name="port",
            area="agent",
            result="fail",
            detail=f"{host}:{port} is taken by another program"
            if taken
            else f"{host}:{port} cannot be bound ({error.strerror})",
            fix=f"find it with `lsof -i :{port}` and end it, or choose another port in "
            "DARKBLOOM_PROVIDER_METRICS_LISTEN (port 0 picks a free one)",
        )
    return fine
