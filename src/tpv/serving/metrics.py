"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("tpv_requests", "Requests answered.", ["endpoint", "status"], registry=own)
        self.request_seconds = Histogram(
            "tpv_request_seconds", "From the request to its answer.", ["endpoint"], buckets=SECONDS, registry=own
        )
        self.rows = Counter("tpv_rows", "Rows answered.", ["kind"], registry=own)
        self.refused = Counter("tpv_refused_rows", "Rows refused since the queue was full.", registry=own)
        self.late = Counter("tpv_late_requests", "Requests that ran out of time.", registry=own)
        self.cancelled = Counter("tpv_cancelled_requests", "Requests whose client went away.", registry=own)
        self.passes = Histogram(
            "tpv_pass_seconds", "Passes through the model.", ["kind"], buckets=SECONDS, registry=own
        )
        self.pass_rows = Histogram("tpv_pass_rows", "Rows of a pass.", ["kind"], buckets=ROWS, registry=own)
        self.pass_prompts = Histogram("tpv_pass_prompts", "Different prompts of a pass.", buckets=ROWS, registry=own)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A value that is looked up when somebody asks."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
