"""Every drill, found in `tests/drills/plays`."""

import pkgutil
from importlib import import_module

from tests.drills import plays
from tests.drills.drill import Drill


def every_drill() -> dict[str, Drill]:
    """Return the drills by name, in order of the name.

    Raises:
        ValueError: Two have one name, or a module has none.
    """
    found: dict[str, Drill] = {}
    for module in pkgutil.iter_modules(plays.__path__):
        loaded = import_module(f"{plays.__name__}.{module.name}")
        drills = getattr(loaded, "DRILLS", None) or (loaded.DRILL,)
        for drill in drills:
            if drill.name in found:
                raise ValueError(f"two drills are called {drill.name}")
            found[drill.name] = drill
    return dict(sorted(found.items()))
