"""What Prometheus can ask the operator. Labels are bounded: never the name of a node or task, and those of
pools only where money is counted (`money/metrics.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """One operator's metrics, in a registry of their own."""

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._depths: dict[str, Callable[[], int]] = {}
        self._reconciles = Histogram(
            "skyward_reconcile_seconds",
            "Time of one reconcile, by controller and outcome (ok, conflict, error).",
            ["controller", "outcome"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Histogram(
            "skyward_api_request_seconds",
            "Time of one attempt at the API server, by verb, kind and code (0: no answer).",
            ["verb", "kind", "code"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._events = Counter(
            "skyward_watch_events_total",
            "Objects that the watches delivered, by kind and type.",
            ["kind", "type"],
            registry=self.registry,
        )
        self.leader = Gauge("skyward_leader", "1 while this process may act, else 0.", registry=self.registry)
        self.synced = Gauge(
            "skyward_synced", "1 once every kind was listed completely.", registry=self.registry
        )
        self.objects = Gauge("skyward_objects", "Objects known, by kind.", ["kind"], registry=self.registry)
        self.watch_age = Gauge(
            "skyward_watch_age_seconds", "Age of the oldest sign of life of a watch.", registry=self.registry
        )
        self.loop_lag = Gauge(
            "skyward_loop_lag_seconds", "How late the event loop ran its last timer.", registry=self.registry
        )
        self.intake_restarts = Counter(
            "skyward_intake_restarts", "How often the intake was started again.", registry=self.registry
        )
        self.resync_corrections = Counter(
            "skyward_resync_corrections",
            "Objects that a list corrected because no watch had told of them, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "skyward_events_dropped", "Kubernetes events that were not written.", registry=self.registry
        )
        self.gateway_connections = Gauge(
            "skyward_gateway_connections", "Connections of clients to the gateway.", registry=self.registry
        )
        self.gateway_refused = Counter(
            "skyward_gateway_refused",
            "Connections and requests that the gateway broke off or refused, by cause.",
            ["cause"],
            registry=self.registry,
        )
        self.orphans = Gauge(
            "skyward_orphans",
            "Machines that belong to no node, as the last sweep saw them, by provider.",
            ["provider"],
            registry=self.registry,
        )
        self.orphans_ended = Counter(
            "skyward_orphans_ended",
            "Machines that belonged to no node and were ended, by provider.",
            ["provider"],
            registry=self.registry,
        )
        self.orphans_blocked = Gauge(
            "skyward_orphans_blocked",
            "Machines that are not ended because they are too many at once, by provider.",
            ["provider"],
            registry=self.registry,
        )
        self.orphans_unswept = Gauge(
            "skyward_orphans_unswept_accounts",
            "Accounts that the last sweep could not look through.",
            registry=self.registry,
        )
        self.orphans_swept = Gauge(
            "skyward_orphans_last_sweep_timestamp_seconds",
            "When the last sweep ended, in seconds since 1970; 0: none has.",
            registry=self.registry,
        )
        self.interruptions = Counter(
            "skyward_interruptions",
            "Machines that their provider took back, announced or not, by provider.",
            ["provider"],
            registry=self.registry,
        )
        self.registry.register(_Depths(self._depths))

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        """Count one reconcile."""
        self._reconciles.labels(controller, outcome).observe(seconds)

    def requested(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Count one attempt at the API server; code 0 means that no answer came."""
        self._requests.labels(verb, kind, str(code)).observe(seconds)

    def watched(self, kind: str, type_: str | None) -> None:
        """Count one object from a watch; type None is the watch's initial list."""
        self._events.labels(kind, type_ or "LISTED").inc()

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Show how many keys wait in a queue."""
        self._depths[name] = depth

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Depths(Collector):
    def __init__(self, depths: dict[str, Callable[[], int]]) -> None:
        self._depths = depths

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("skyward_queue_depth", "Keys that wait, by queue.", labels=["queue"])
        for name, depth in self._depths.items():
            family.add_metric([name], depth())
        yield family
