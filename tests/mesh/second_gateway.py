"""One more gateway in front of a running mesh."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from darkbloom_local import ready
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.process import Child, Command
from darkbloom_local.wiring import GATEWAY

NAME = "gateway-2"
_READY_S = 30.0
_GRACE_S = 10.0


@asynccontextmanager
async def second_gateway(mesh: Mesh) -> AsyncIterator[str]:
    """Start it, yield its base URL, stop it."""
    ready_file = mesh.state.path("run", f"{NAME}.json")
    ready.forget(ready_file)
    environment = {
        **inherited(),
        **mesh._launcher.room_environment(GATEWAY),
        "DARKBLOOM_GATEWAY_LISTEN": "127.0.0.1:0",
        "DARKBLOOM_GATEWAY_NAME": NAME,
        "DARKBLOOM_GATEWAY_READY_FILE": str(ready_file),
        "DARKBLOOM_GATEWAY_STATE_DIR": str(mesh.state.directory(NAME)),
    }
    child = Child.start(
        Command(name=NAME, argv=GATEWAY.argv(), env=environment, log=mesh.state.log(NAME))
    )
    try:
        said = await ready.wait(child, ready_file, _READY_S)
        yield f"http://{said['listeners']['http']}"
    finally:
        child.stop(_GRACE_S)
