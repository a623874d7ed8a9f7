"""The requests that have not had their last frame, and those whose gateway is lost."""

from collections.abc import Callable
from functools import partial

from darkbloom_router.attempts import Request
from darkbloom_router.queueing import Line
from darkbloom_router.timers import Timers


class Requests:
    """Requests by id; an id is in use once at a time."""

    def __init__(self, timers: Timers, line: Line) -> None:
        self._timers = timers
        self._line = line
        self._live: dict[str, Request] = {}
        self._orphans: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._live)

    def get(self, request_id: str) -> Request | None:
        """Return a live request by id."""
        return self._live.get(request_id)

    def ids(self) -> set[str]:
        """Return the requests whose holds the router keeps from lapsing."""
        return {
            name
            for requests in (self._live, self._orphans)
            for name, request in requests.items()
            if not request.demand.free
        }

    def add(self, request: Request) -> None:
        """Take a request in, on its lane and by its id."""
        request.gateway.requests[request.stream] = request
        self._live[request.request_id] = request

    def finish(self, request: Request) -> None:
        """Forget a request; its frames change nothing from here on."""
        self._line.leave(request, "gone")
        request.plan = None
        for timer in (request.timer, request.hedge_timer):
            if timer is not None:
                timer.cancel()
        request.gateway.requests.pop(request.stream, None)
        if self._live.get(request.request_id) is request:
            del self._live[request.request_id]

    def orphan(self, request: Request, seconds: float, lost: Callable[[Request], None]) -> None:
        """Keep a request's hold for a gateway that comes back; `lost` is called if none does."""
        self.finish(request)
        self._orphans[request.request_id] = request
        action = partial(self._expire, request, lost)
        request.timer = self._timers.after(seconds, action)

    def adopt(self, request_id: str) -> None:
        """Leave an orphan's hold to the request that now carries it."""
        orphan = self._orphans.pop(request_id, None)
        if orphan is not None and orphan.timer is not None:
            orphan.timer.cancel()

    def expire(self, lost: Callable[[Request], None]) -> None:
        """Give up every orphan now."""
        for request in list(self._orphans.values()):
            self.adopt(request.request_id)
            lost(request)

    def _expire(self, request: Request, lost: Callable[[Request], None]) -> None:
        self._orphans.pop(request.request_id, None)
        lost(request)
