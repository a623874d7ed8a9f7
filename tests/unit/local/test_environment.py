"""A child inherits the person's shell, but nothing in it that configures a mesh."""

import pytest
from darkbloom_local.environment import inherited, refuse_production
from darkbloom_local.errors import ProductionRefusedError


def test_variables_that_configure_a_mesh_are_left_behind() -> None:
    shell = {
        "PATH": "/bin",
        "HOME": "/home/x",
        "DARKBLOOM_ROUTER_MIN_TRUST": "none",
        "DATABASE_URL": "postgresql://elsewhere/production",
        "REDIS_URL": "redis://elsewhere",
        "PGHOST": "elsewhere",
    }
    assert inherited(shell) == {"PATH": "/bin", "HOME": "/home/x", "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("value", ["production", "Production", " production "])
def test_a_production_machine_is_refused(value: str) -> None:
    with pytest.raises(ProductionRefusedError):
        refuse_production({"DARKBLOOM_ENV": value})


@pytest.mark.parametrize("environ", [{}, {"DARKBLOOM_ENV": "development"}])
def test_other_machines_are_welcome(environ: dict[str, str]) -> None:
    refuse_production(environ)
