"""A metric as it is declared, and one whose labels keep to what was declared."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from darkbloom_mesh.labels import OTHER, Vocabulary

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, eq=False)
class Spec:
    """One declared metric; itself and nothing else, so that finding it by it costs nothing.

    Attributes:
        name: As it is scraped.
        doc: One line.
        kind: What it counts with.
        unit: Of its value; empty for plain numbers.
        vocabulary: What each label may say, in the order of the labels.
        buckets: Upper bounds, of a histogram.
    """

    name: str
    doc: str
    kind: Kind = "counter"
    unit: str = ""
    vocabulary: tuple[tuple[str, Vocabulary], ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return tuple(name for name, _ in self.vocabulary)


class Closed(MetricWrapperBase):
    """A metric whose labels keep to their lists.

    A set of values is judged once; after that, finding its child is one look-up.
    """

    def close(self, spec: Spec, folded: Callable[[], None]) -> Self:
        """Take the lists; `folded` hears of each value that became `other`."""
        self._judges = [vocabulary.judge() for _, vocabulary in spec.vocabulary]
        self._folded = folded
        self._children: dict[tuple[object, ...], Self] = {}
        return self

    def labels(self, *values: object, **named: object) -> Self:
        """Return the child of these values."""
        child = self._children.get(values)
        if child is not None:
            return child
        if named or len(values) != len(self._judges):
            raise ValueError("labels are given in their order, each once")
        texts = [str(value) for value in values]
        shown = [
            text if judge(text) else OTHER for text, judge in zip(texts, self._judges, strict=True)
        ]
        child = super().labels(*shown)
        if shown == texts:
            self._children[values] = child
        else:
            self._folded()
        return child

    def clear(self) -> None:
        """Forget all children."""
        super().clear()
        self._children.clear()


class _Counter(Closed, Counter):
    """See `Closed`."""


class _Gauge(Closed, Gauge):
    """See `Closed`."""


class _Histogram(Closed, Histogram):
    """See `Closed`."""


_CLASSES: dict[Kind, type[Closed]] = {
    "counter": _Counter,
    "gauge": _Gauge,
    "histogram": _Histogram,
}


def make(spec: Spec, registry: CollectorRegistry, folded: Callable[[], None]) -> Closed:
    """Make a metric.

    Args:
        spec: What it is.
        registry: Where it is scraped.
        folded: Hears of each value that was not in its label's list.
    """
    options: dict[str, Any] = {"buckets": spec.buckets} if spec.buckets else {}
    made = _CLASSES[spec.kind](spec.name, spec.doc, spec.labels, registry=registry, **options)
    return made.close(spec, folded)


def serve(registry: CollectorRegistry, address: str) -> tuple[WSGIServer, Thread]:
    """Serve metrics at host:port; returns the server, to be shut down, and its thread."""
    host, _, port = address.rpartition(":")
    return start_http_server(int(port), host, registry=registry)
