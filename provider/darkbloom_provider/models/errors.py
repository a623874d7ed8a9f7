"""What can be wrong with a model on this machine."""


class ModelError(Exception):
    """Any refusal by the model store; the message names paths and ids, never file content."""


class ManifestError(ModelError):
    """A manifest breaks a rule of its schema or does not match what it describes."""


class GgufError(ModelError):
    """A GGUF file is malformed, or uses something that cannot be imported."""


class ModelNotFoundError(ModelError):
    """No such build or version is in the store."""


class ModelExistsError(ModelError):
    """Another set of bytes is already published under this build and version."""


class ModelCorruptError(ModelError):
    """Bytes on disk are not those of the manifest."""


class ModelBusyError(ModelError):
    """Another process is writing this build."""


class ModelInUseError(ModelError):
    """The agent serves this version now."""


class DiskFullError(ModelError):
    """The volume cannot hold the files."""
