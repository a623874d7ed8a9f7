"""What machine this is (spec: provider section 6.1), and how hard it works right now."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass

import psutil

_GB = 1 << 30
_RESERVE_GB = 4.0
_UNKNOWN_BANDWIDTH = 100.0
_BANDWIDTH = {
    ("M1", "Base"): 68.0,
    ("M1", "Pro"): 200.0,
    ("M1", "Max"): 400.0,
    ("M1", "Ultra"): 800.0,
    ("M2", "Base"): 100.0,
    ("M2", "Pro"): 200.0,
    ("M2", "Max"): 400.0,
    ("M2", "Ultra"): 800.0,
    ("M3", "Base"): 100.0,
    ("M3", "Pro"): 150.0,
    ("M3", "Max"): 300.0,
    ("M3", "Ultra"): 819.0,
    ("M4", "Base"): 120.0,
    ("M4", "Pro"): 273.0,
    ("M4", "Max"): 410.0,
    ("M5", "Base"): 153.0,
    ("M5", "Pro"): 307.0,
    ("M5", "Max"): 460.0,
}
_CHIP = re.compile(r"Apple (M[1-6])(?: (Pro|Max|Ultra))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Static facts; sizes in GiB, bandwidth in GB/s."""

    machine_model: str
    chip_name: str
    chip_family: str
    chip_tier: str
    memory_gb: float
    memory_available_gb: float
    cpu_cores_total: int
    cpu_cores_performance: int
    cpu_cores_efficiency: int
    gpu_cores: int
    memory_bandwidth_gbs: float
    os_version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Live metrics, shares from 0 to 1."""

    memory_pressure: float
    cpu_usage: float


def detect() -> Hardware:
    """Read what the system says; unknown facts are `Unknown` or zero, never guessed."""
    memory = psutil.virtual_memory().total / _GB
    if sys.platform == "darwin":
        chip, model = _sysctl("machdep.cpu.brand_string"), _sysctl("hw.model")
        performance = _count(_sysctl("hw.perflevel0.physicalcpu"))
        efficiency = _count(_sysctl("hw.perflevel1.physicalcpu"))
        version = platform.mac_ver()[0]
    else:
        chip, model = _linux_cpu(), platform.machine()
        performance = efficiency = 0
        version = platform.release()
    family, tier = chip_class(chip)
    return Hardware(
        machine_model=model or "Unknown",
        chip_name=chip or "Unknown",
        chip_family=family,
        chip_tier=tier,
        memory_gb=memory,
        memory_available_gb=max(0.0, memory - _RESERVE_GB),
        cpu_cores_total=psutil.cpu_count() or 0,
        cpu_cores_performance=performance,
        cpu_cores_efficiency=efficiency,
        gpu_cores=0,
        memory_bandwidth_gbs=_BANDWIDTH.get((family, tier), _UNKNOWN_BANDWIDTH),
        os_version=version,
    )


def chip_class(chip_name: str) -> tuple[str, str]:
    """Return family and tier of a chip name, `Unknown` for what is not an M-series chip.

    >>> chip_class("Apple M4 Max")
    ('M4', 'Max')
    """
    match = _CHIP.fullmatch(chip_name.strip())
    if match is None:
        return "Unknown", "Unknown"
    return match.group(1), match.group(2) or "Base"


def load() -> Load:
    """Measure memory pressure and the one-minute load."""
    cores = psutil.cpu_count() or 1
    one_minute = psutil.getloadavg()[0]
    return Load(
        memory_pressure=min(1.0, max(0.0, psutil.virtual_memory().percent / 100)),
        cpu_usage=min(1.0, max(0.0, one_minute / cores)),
    )


def _linux_cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a device of the kernel, not a path of ours
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return ""
    return ""


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed absolute path, constant names
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _count(text: str) -> int:
    return int(text) if text.isdigit() else 0
