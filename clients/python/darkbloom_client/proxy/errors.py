"""What can be wrong with how the proxy is started."""


class ProxyError(Exception):
    """It does not start, and this is why.

    Args:
        message: what is wrong.
        remedy: what to do about it; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
