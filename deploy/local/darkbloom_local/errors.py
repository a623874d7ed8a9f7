"""What can stop a local mesh; every message is written for the person at the terminal."""


class LocalError(Exception):
    """The mesh cannot start or go on; the message says why and what to do."""


class StateInUseError(LocalError):
    """Another mesh runs in this state directory."""


class PortTakenError(LocalError):
    """A port that was asked for belongs to somebody else."""


class DiskFullError(LocalError):
    """The state directory has less free space than a mesh needs."""


class ChildDiedError(LocalError):
    """A process of the mesh ended by itself; the message carries the end of its log."""


class NotReadyError(LocalError):
    """A process of the mesh lives but did not become ready in time."""


class ProductionRefusedError(LocalError):
    """`DARKBLOOM_ENV=production`: a development mesh never starts there."""
