"""One pool as this program sees it: its newest objects, told to the console and waited for by callers.

Fed by two watches. Waiting is a condition on what they bring, never a poll.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from skyward.cluster.watch import OnObject, Watch
from skyward.console import Subject
from skyward.console.board import count
from skyward.contract.names import LABEL_POOL, NODE, POOL, Kind
from skyward.contract.reasons import NodePhase
from skyward.errors import PoolDeleted, PoolNotReady, PoolStalled
from skyward.heartbeat import Heartbeat
from skyward.narration import (
    billed_words,
    budget_words,
    has_no_node,
    ignored_words,
    node_words,
    pool_words,
    price_words,
    scaling_words,
    stalled_error,
)
from skyward.session import Session

_TICK_SECONDS = 1.0


class PoolView:
    """Watches the pool `name` and its nodes until `stop`."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pool: dict[str, Any] | None = None
        self.most_nodes = 0
        self.cost: dict[str, Any] = {}
        """What it cost, as it was last said; also when the pool is gone."""
        self._session = session
        self._console = session.console
        self._subject = Subject("pool", name)
        self._changed = threading.Condition()
        self._expects_deletion = False
        self._failures_told: dict[str, str] = {}
        self._scaling_told = ""
        self._budget_told = ""
        self._takes_calls = False
        self._heartbeat: Heartbeat | None = None
        self._watches = [
            self._watch(POOL, self._on_pool, self._on_pool_gone, fieldSelector=f"metadata.name={name}"),
            self._watch(NODE, self._on_node, self._on_node_gone, labelSelector=f"{LABEL_POOL}={name}"),
        ]

    def start(self) -> None:
        """Begin to watch."""
        for watch in self._watches:
            watch.start()

    def keep_alive(self, lease_seconds: float) -> None:
        """Have the operator know that this program is there, until the pool's deletion is expected."""
        self._heartbeat = Heartbeat(self._session.api, self._session.namespace, self.name, lease_seconds)
        self._heartbeat.start()

    def stop(self) -> None:
        """End watching, and the signs of life."""
        self._stop_heartbeat()
        for watch in self._watches:
            watch.stop()

    @property
    def ready_nodes(self) -> int:
        """How many nodes take calls now."""
        return sum(_phase(node) == NodePhase.READY for node in list(self.nodes.values()))

    @property
    def _has_seen_nodes(self) -> bool:
        """Whether the watch of the nodes has come as far as that of the pool."""
        counts = ((self.pool or {}).get("status") or {}).get("nodes") or {}
        return self.ready_nodes >= int(counts.get("ready", 0))

    @property
    def pythons(self) -> dict[str, str]:
        """The Python minor version of each ready node that says it."""
        ready = {n: node["status"] for n, node in list(self.nodes.items()) if _phase(node) == NodePhase.READY}
        versions = {name: (status.get("agent") or {}).get("python") for name, status in ready.items()}
        return {name: ".".join(python.split(".")[:2]) for name, python in versions.items() if python}

    @property
    def is_usable(self) -> bool:
        """Whether enough nodes are ready for the spec as it is."""
        pool = self.pool or {}
        status = pool.get("status") or {}
        generation = pool.get("metadata", {}).get("generation", 0)
        return bool(status.get("usable")) and status.get("observedGeneration", generation) >= generation

    def wait_usable(self, aborted: threading.Event) -> None:
        """Wait until calls can run. Raises PoolStalled, BootstrapFailed or PoolDeleted if they never will."""

        def is_usable() -> bool:
            if aborted.is_set():
                raise PoolNotReady(f"waiting for pool {self.name} was cancelled")
            if self.pool is None:
                raise PoolDeleted(
                    f"pool {self.name} was deleted before it was ready", remedy="create it again"
                )
            if (error := stalled_error(self.pool)) is not None:
                raise error
            return self.is_usable and self._has_seen_nodes

        try:
            self._wait(is_usable)
        finally:
            self._console.done(self._subject)
        self._takes_calls = True
        price = price_words(self.pool or {})
        self._console.tell(self._subject, f"ready: {self._extent()}" + (f" · {price}" if price else ""))
        for words in (ignored_words(self.pool or {}), billed_words(self.pool or {})):
            if words:
                self._console.tell(self._subject, f"⚠ {words}")

    def check_startable(self) -> None:
        """Raise what a call would wait for in vain: PoolStalled or BootstrapFailed."""
        if (error := self._dead_end()) is not None:
            raise error

    def wait_gone(self, seconds: float) -> bool:
        """Wait until the pool and its nodes are gone, which the operator proves. False after `seconds`."""
        deadline = time.monotonic() + seconds

        def is_over() -> bool:
            return (self.pool is None and not self.nodes) or time.monotonic() > deadline

        self._console.update(self._subject, "deleting")
        try:
            self._wait(is_over)
        finally:
            self._console.done(self._subject)
        return self.pool is None and not self.nodes

    def expect_deletion(self) -> None:
        """This program deletes the pool itself: that is no bad news. If it fails, the lease ends it."""
        self._expects_deletion = True
        self._stop_heartbeat()

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def _dead_end(self) -> PoolStalled | None:
        """Why no call runs before the spec changes; None while one may."""
        return stalled_error(self.pool) if self.pool is not None and has_no_node(self.pool) else None

    def _wait(self, is_over: Callable[[], bool]) -> None:
        with self._changed:
            while not is_over():
                self._narrate()
                self._changed.wait(_TICK_SECONDS)

    def _narrate(self) -> None:
        if self.pool is None:
            words = f"{count(len(self.nodes), 'node')} left"
        elif self._expects_deletion:
            words = f"deleting: {count(len(self.nodes), 'node')} left"
        else:
            words = pool_words(self.pool, self._console.elapsed(self._subject))
        self._console.update(self._subject, words)

    def _extent(self) -> str:
        ready, total = self.ready_nodes, len(self.nodes)
        if total == 0:
            return "nodes start with the first call"
        return count(ready, "node") if ready == total else f"{ready} of {total} nodes"

    def _on_pool(self, pool: dict[str, Any]) -> None:
        with self._changed:
            self.pool = pool
            self._remember_cost(pool)
            self._changed.notify_all()
        if not self._expects_deletion:
            self._tell_scaling(pool)
            self._tell_budget(pool)
            if self._takes_calls and self._dead_end() is not None:
                self._session.pool_stalled(self.name, self._dead_end)

    def _tell_scaling(self, pool: dict[str, Any]) -> None:
        """Each decision of the operator once, from when the pool takes calls."""
        words = scaling_words(pool)
        if words and words != self._scaling_told and self._takes_calls:
            self._console.tell(self._subject, words)
        self._scaling_told = words

    def _tell_budget(self, pool: dict[str, Any]) -> None:
        """Each step towards the end of a budget once."""
        words = budget_words(pool)
        step = words.partition("%")[0]
        if step and step != self._budget_told:
            self._console.tell(self._subject, words)
        self._budget_told = step

    def _remember_cost(self, pool: dict[str, Any]) -> None:
        self.cost = (pool.get("status") or {}).get("cost") or self.cost

    def _on_pool_gone(self, pool: dict[str, Any]) -> None:
        with self._changed:
            self._remember_cost(pool)
            self.pool = None
            self._changed.notify_all()
        if not self._expects_deletion:
            self._console.tell(self._subject, "✘ was deleted by somebody else")
        self._session.pool_gone(self.name)

    def _on_node(self, node: dict[str, Any]) -> None:
        with self._changed:
            self.nodes[node["metadata"]["name"]] = node
            self.most_nodes = max(self.most_nodes, len(self.nodes))
            self._changed.notify_all()
        subject = _subject(node)
        match _phase(node):
            case NodePhase.READY:
                self._console.done(subject, "ready" if self._console.elapsed(subject) else "")
            case NodePhase.FAILED:
                self._console.done(subject)
                self._tell_failure(node["metadata"]["name"], subject, f"✘ {node_words(node)}")
            case _:
                self._console.update(subject, node_words(node))

    def _tell_failure(self, node: str, subject: Subject, words: str) -> None:
        if self._failures_told.get(node) != words:
            self._failures_told[node] = words
            self._console.tell(subject, words)

    def _on_node_gone(self, node: dict[str, Any]) -> None:
        with self._changed:
            self.nodes.pop(node["metadata"]["name"], None)
            self._changed.notify_all()
        released = self._expects_deletion or _phase(node) in (NodePhase.DRAINING, NodePhase.TERMINATING)
        self._console.done(_subject(node), "released" if released else "")

    def _watch(self, kind: Kind, on_object: OnObject, on_gone: OnObject, **selectors: str) -> Watch:
        return Watch(
            self._session.api,
            kind,
            self._session.namespace,
            on_object=on_object,
            on_gone=on_gone,
            on_trouble=self._session.trouble,
            selectors=selectors,
        )


def _phase(node: dict[str, Any]) -> str:
    return str((node.get("status") or {}).get("phase") or NodePhase.PENDING)


def _subject(node: dict[str, Any]) -> Subject:
    return Subject("node", str(node["spec"]["rank"]))
