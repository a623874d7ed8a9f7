"""What the prefix cache says of itself: sums since the start of the engine, and no identifiers."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """Counters and sizes."""

    memory_bytes: int
    memory_max_bytes: int
    lookups: int
    """Prompts whose beginning might have been known."""
    hits: int
    hit_tokens: int
    """Tokens that were not read again."""
    disk_tokens: int
    """Those of them that came from the disk."""
    evicted: int
    """Blocks that left the memory for want of room."""
    disk: bool = False
    """Whether there is a tier on disk."""
    disk_bytes: int = 0
    disk_files: int = 0
    disk_written: int = 0
    disk_bad: int = 0
    """Files that did not open and were removed."""
    disk_dropped: int = 0
    """Blocks that were not written: queue, space, allowance."""
