"""What nodes say before the tasks are known: kept in order, then told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skyward.wire.frames import Frame
    from skyward_operator.nodes.fleet import NodeListener, ReadyNode
    from skyward_operator.nodes.received import Received


class Backlog:
    """A `NodeListener` in front of another one that is not ready to listen yet.

    An agent sends each result once per connection, so nothing that arrives early may be dropped.
    """

    def __init__(self, target: NodeListener) -> None:
        self._target = target
        self._kept: list[Callable[[], None]] | None = []

    def release(self) -> None:
        """Tell everything that was kept, and from now on tell at once."""
        kept, self._kept = self._kept or [], None
        for tell in kept:
            tell()

    def node_ready(self, node: ReadyNode) -> None:
        """A node answers."""
        self._tell(lambda: self._target.node_ready(node))

    def node_lost(self, namespace: str, name: str, reason: str) -> None:
        """A node is gone."""
        self._tell(lambda: self._target.node_lost(namespace, name, reason))

    def node_cordoned(self, namespace: str, name: str) -> None:
        """A node gets no more calls."""
        self._tell(lambda: self._target.node_cordoned(namespace, name))

    def busy(self, namespace: str, name: str) -> bool:
        """Before the tasks are known, every node may have something."""
        return self._kept is not None or self._target.busy(namespace, name)

    def started(self, namespace: str, node: str, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        self._tell(lambda: self._target.started(namespace, node, header))

    def log(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        self._tell(lambda: self._target.log(namespace, node, header, body))

    def streamed(self, namespace: str, node: str, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        self._tell(lambda: self._target.streamed(namespace, node, frame))

    def announced(self, namespace: str, node: str, header: Mapping[str, Any]) -> bool:
        """A large result waits at its agent; before the tasks are known it is wanted."""
        return self._kept is not None or self._target.announced(namespace, node, header)

    def stalled(self, namespace: str, node: str, attempt: str, trouble: str | None) -> None:
        """A result does not come, or comes again."""
        self._tell(lambda: self._target.stalled(namespace, node, attempt, trouble))

    def result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        """A RESULT or REFUSED frame."""
        self._tell(lambda: self._target.result(namespace, node, header, body))

    def _tell(self, tell: Callable[[], None]) -> None:
        if self._kept is None:
            tell()
        else:
            self._kept.append(tell)
