"""How far machines are with builds, as routers told."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ModelStage(StrEnum):
    """Steps of a build on a machine."""

    STARTED = "started"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    FAILED = "failed"
    LOADED = "loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One machine and one build."""

    provider_id: str
    build: str
    stage: ModelStage
    bytes_done: int
    bytes_total: int
    error: str
    """A closed word; empty unless failed."""
    report_time: datetime
    machine: str = ""
    """What it is called whenever it connects; empty where the router did not say."""
