"""Counters of one process, and their Prometheus text.

A scrape reaches one process: with several, each is a target of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """Everything this process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "wantastic_server_"
        self.rpcs = Counter(
            name + "rpcs",
            "Calls by method and outcome.",
            ["method", "code"],
            registry=self.registry,
        )
        self.latency = Histogram(
            name + "rpc_seconds",
            "Time to the answer of calls that do not wait.",
            ["method"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.http = Counter(
            name + "http_requests",
            "HTTP requests by page and status.",
            ["page", "status"],
            registry=self.registry,
        )
        self.gateway_errors = Counter(
            name + "gateway_errors",
            "Changes that the gateway failed to take.",
            registry=self.registry,
        )

    def observe(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for at each scrape."""
        Gauge("wantastic_server_" + name, text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)
