"""What a server counts, in Prometheus' format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = mine = CollectorRegistry()
        self.requests = Counter(
            "lite_requests",
            "Videos asked about, by HTTP status of the answer",
            ["code"],
            registry=mine,
        )
        self.in_flight = Gauge(
            "lite_requests_in_flight", "Requests not answered yet", registry=mine
        )
        self._seconds = Histogram(
            "lite_stage_seconds",
            "Of a request: upload, decode, model (with the wait for it)",
            ["stage"],
            buckets=_SECONDS,
            registry=mine,
        )
        self.batch_size = Histogram(
            "lite_batch_size",
            "Videos in a forward pass",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=mine,
        )
        self.restarts = Counter(
            "lite_model_restarts", "Model processes that were replaced", registry=mine
        )
        self.gmacs = Counter("lite_gmacs", "Billions of multiply-accumulates spent", registry=mine)
        self.full_gmacs = Counter(
            "lite_full_gmacs", "What the full model had spent on the same videos", registry=mine
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of a request, however it ends."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds.labels(name).observe(time.monotonic() - start)

    def page(self) -> bytes:
        """What /metrics answers."""
        return generate_latest(self._registry)
