"""A cluster of PostgreSQL that is restored from the archive, looked at, and deleted.

For CloudNativePG, where a restore is a `Cluster` with `bootstrap.recovery`: nothing else reads what
the Barman Cloud plug-in has archived. The scratch one is made after the live one: the same image,
disks and settings, one instance, no archive of its own, no logins to manage. Its label says what it
is, and nothing without that label is ever deleted.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import MeshError, NotFoundError, PreconditionError, UnavailableError

SCRATCH = "darkbloom.dev/scratch"
"""Label of what may be deleted."""
_ARCHIVE = "archive"
_API = "/apis/postgresql.cnpg.io/v1/namespaces"
_POLL_S = 10.0
_CALL_S = 30.0
_GONE_S = 300.0
_LAST_S = 15.0
"""For the last word of a check that was told to stop; its pod has a minute."""
_MISSING = 404
_log = structlog.get_logger()


def scratch_of(live: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the cluster that restores what a live one has archived, up to the newest commit.

    Raises:
        PreconditionError: The live one archives nothing.
    """
    spec = live["spec"]
    archivers = [one for one in spec.get("plugins", ()) if one.get("isWALArchiver")]
    if not archivers:
        raise PreconditionError("the cluster has no archive to restore from")
    archiver = archivers[0]
    parameters = dict(archiver.get("parameters", {}))
    parameters.setdefault("serverName", live["metadata"]["name"])
    # Not what pods inherit: services and policies of the live cluster go by those labels.
    same = ("imageName", "storage", "walStorage", "resources", "postgresql")
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {
            "name": name,
            "namespace": live["metadata"]["namespace"],
            "labels": {SCRATCH: "true"},
        },
        "spec": {
            **{key: spec[key] for key in same if key in spec},
            "instances": 1,
            "bootstrap": {"recovery": {"source": _ARCHIVE}},
            "externalClusters": [
                {
                    "name": _ARCHIVE,
                    "plugin": {"name": archiver["name"], "parameters": parameters},
                }
            ],
        },
    }


def at_host(url: Secret, host: str) -> Secret:
    """Return the same login at another host: a restored cluster has the logins of the live one."""
    parts = urlsplit(url.reveal())
    login, _, where = parts.netloc.rpartition("@")
    port = where.rpartition(":")[2]
    there = f"{host}:{port}" if port.isdigit() else host
    return Secret(urlunsplit(parts._replace(netloc=f"{login}@{there}" if login else there)))


class Clusters:
    """Clusters of one namespace, by the API of Kubernetes.

    Args:
        http: Knows where the API is and who asks.
        namespace: Of all of them.
        clock: Time.
    """

    def __init__(self, http: httpx.AsyncClient, namespace: str, clock: Clock) -> None:
        self._http = http
        self._path = f"{_API}/{namespace}/clusters"
        self._clock = clock

    @asynccontextmanager
    async def restored(
        self, live: str, name: str, *, wait_s: float, left: Callable[[str], object]
    ) -> AsyncIterator[str]:
        """Restore the newest backup of a cluster and yield the host of the result; then delete it.

        That it could not be deleted undoes nothing of what was found: it is logged and told to
        `left`. Cancelled, it asks once for the deletion and does not see it done.

        Args:
            live: Cluster whose archive is read; it is only looked at.
            name: Of the scratch one; what an earlier check left behind is deleted first.
            wait_s: Longest wait for the restore.
            left: Hears the name of what could not be deleted.

        Raises:
            PreconditionError: The live cluster archives nothing, or a cluster of that name is none
                of ours.
            UnavailableError: The API does not answer as it should, or the restore takes too long.
        """
        found = await self._get(live)
        if found is None:
            raise NotFoundError("no such cluster")
        wanted = scratch_of(found, name)
        await self._delete(name)
        try:
            try:
                await self._ask("POST", self._path, json=wanted)
                await self._ready(name, wait_s)
                yield f"{name}-rw"
            except Exception:
                await self._tidy(name, left)
                raise
            await self._tidy(name, left)
        except asyncio.CancelledError:
            # Whoever told us to stop does not wait until a cluster is gone.
            await self._tidy(name, left, wait=False)
            raise

    async def _tidy(self, name: str, left: Callable[[str], object], *, wait: bool = True) -> None:
        try:
            async with asyncio.timeout(None if wait else _LAST_S):
                await self._delete(name, wait=wait)
        except (MeshError, TimeoutError, ValueError) as error:
            why = error.message if isinstance(error, MeshError) else type(error).__name__
            _log.warning("scratch_cluster_left", cluster=name, why=why)
            left(name)

    async def _ready(self, name: str, wait_s: float) -> None:
        end = self._clock.monotonic() + wait_s
        while self._clock.monotonic() < end:
            found = await self._get(name) or {}
            if found.get("status", {}).get("readyInstances", 0) >= 1:
                return
            await self._clock.sleep(_POLL_S)
        raise UnavailableError(f"the restore did not arrive within {wait_s:.0f} s")

    async def _delete(self, name: str, *, wait: bool = True) -> None:
        found = await self._get(name)
        if found is None:
            return
        if found["metadata"].get("labels", {}).get(SCRATCH) != "true":
            raise PreconditionError("a cluster of this name is no scratch one; nothing is deleted")
        await self._ask("DELETE", f"{self._path}/{name}")
        end = self._clock.monotonic() + _GONE_S
        while wait and await self._get(name) is not None:
            if self._clock.monotonic() > end:
                raise UnavailableError("the scratch cluster does not go")
            await self._clock.sleep(_POLL_S)

    async def _get(self, name: str) -> dict[str, Any] | None:
        answer = await self._ask("GET", f"{self._path}/{name}", missing=True)
        if answer.status_code == _MISSING:
            return None
        found: dict[str, Any] = answer.json()
        return found

    async def _ask(
        self, method: str, path: str, *, json: Any = None, missing: bool = False
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=json, timeout=_CALL_S)
        except httpx.HTTPError as error:
            raise UnavailableError(f"kubernetes did not answer: {type(error).__name__}") from None
        gone = answer.status_code == _MISSING and (missing or method == "DELETE")
        if not answer.is_success and not gone:
            # Its words may repeat the object; the number is enough to look it up.
            raise UnavailableError(f"kubernetes refused {method}: {answer.status_code}")
        return answer


def api(address: str, credentials: Path) -> httpx.AsyncClient:
    """Return a client of Kubernetes with what a pod was given: `token` and `ca.crt`.

    Raises:
        OSError: They cannot be read.
    """
    token = (credentials / "token").read_text(encoding="utf-8").strip()
    return httpx.AsyncClient(
        base_url=address,
        headers={"authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=str(credentials / "ca.crt")),
    )
