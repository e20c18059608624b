"""The nodes that can be worked with right now, in memory only.

The API server says which nodes there are; the fleet says which of them answer, and through which link. It is
rebuilt after each restart from what the agents say. Tasks learn of nodes through one `NodeListener`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from skyward.wire.frames import Frame
    from skyward_operator.nodes.received import Received
    from skyward_operator.nodes.session import Session

type Key = tuple[str, str]
"""Namespace and name of a node."""


@dataclass(frozen=True, slots=True)
class ReadyNode:
    """A node whose agent answered. `held` is what its agent has: attempt id to `running` or `done`. `counts`
    says of how many calls in a row that attempt is the first, where it is more than one."""

    namespace: str
    name: str
    pool: str
    rank: int
    slots: int
    python: str
    address: str
    boot_id: str
    held: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False
    """It takes no further calls; what its agent holds is collected."""
    counts: Mapping[str, int] = field(default_factory=dict)


class NodeListener(Protocol):
    """Who is told what happens on nodes. Calls are made on the event loop and must return fast."""

    def node_ready(self, node: ReadyNode) -> None:
        """A node answers (again). Attempts that it had and that are not in `held` are lost."""
        ...

    def node_lost(self, namespace: str, name: str, reason: str) -> None:
        """A node is gone, with all that ran on it. `reason` is a NodeReason."""
        ...

    def node_cordoned(self, namespace: str, name: str) -> None:
        """A node shall get no more calls, and what has not begun there shall come back."""
        ...

    def busy(self, namespace: str, name: str) -> bool:
        """Whether a node has calls, or results that are not durable yet, as far as that is known."""
        ...

    def started(self, namespace: str, node: str, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        ...

    def log(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        ...

    def streamed(self, namespace: str, node: str, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        ...

    def announced(self, namespace: str, node: str, header: Mapping[str, Any]) -> bool:
        """A large RESULT waits at the agent. Whether its bytes are wanted: then they come as `result`, else
        it has been acknowledged or will be."""
        ...

    def stalled(self, namespace: str, node: str, attempt: str, trouble: str | None) -> None:
        """Why a result that was announced does not come; None when it comes again."""
        ...

    def result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        """A RESULT with its whole body, a large one in a file that is the listener's from now on, to keep
        (then it sets `taken`) or to drop. It comes again until it is acknowledged.

        A REFUSED frame arrives here too, as a header with `ok` false, `refused` true and `reason`.
        """
        ...


class Link(Protocol):
    """The way to one agent. Calls never block and never fail: what a lost link swallowed is sent again by
    the listener once `node_ready` says what the agent holds."""

    def ensure_function(self, digest: str, data: bytes) -> None:
        """Have the agent know this function, once per connection."""
        ...

    def send_call(self, header: Mapping[str, Any], args: bytes | None) -> None:
        """Have the agent run a call. Large arguments go ahead of it in chunks."""
        ...

    def send_blob(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Store bytes at the agent, read lazily; calls sent later that name the digest come after it."""
        ...

    def cancel(self, attempt: str, grace: float) -> None:
        """Stop an attempt, with force after `grace` seconds."""
        ...

    def recall(self, attempt: str) -> None:
        """Have those calls of a slice come back, refused, that have not begun."""
        ...

    def limit(self, attempt: str, timeout: float | None) -> None:
        """Let an attempt run so long from its start, whatever its call said; None is no limit."""
        ...

    def ack(self, attempts: Sequence[str]) -> None:
        """Say that these results are safe here, so that the agent may forget them."""
        ...

    def pass_on(self, frame: Frame) -> None:
        """Send a CREDIT or INPUT frame to its call."""
        ...

    def logged(self, attempts: Mapping[str, int]) -> None:
        """Say that the output of these attempts is on disk here up to that byte, or is not wanted."""
        ...


class Silence:
    """The listener before anyone listens."""

    def node_ready(self, node: ReadyNode) -> None:
        """Ignore it; `Fleet.listen` tells the listener later."""

    def node_lost(self, namespace: str, name: str, reason: str) -> None:
        """Ignore it."""

    def node_cordoned(self, namespace: str, name: str) -> None:
        """Ignore it."""

    def busy(self, namespace: str, name: str) -> bool:
        """Nobody knows yet."""
        return True

    def started(self, namespace: str, node: str, header: Mapping[str, Any]) -> None:
        """Ignore it."""

    def log(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """Ignore it."""

    def streamed(self, namespace: str, node: str, frame: Frame) -> None:
        """Ignore it: it is asked for again."""

    def announced(self, namespace: str, node: str, header: Mapping[str, Any]) -> bool:
        """Leave it with the agent, which announces it again."""
        return False

    def stalled(self, namespace: str, node: str, attempt: str, trouble: str | None) -> None:
        """Ignore it."""

    def result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        """Ignore it: it is not acknowledged, so the agent keeps it."""


class Fleet:
    """All sessions with nodes, and which of them are ready."""

    def __init__(self) -> None:
        self.listener: NodeListener = Silence()
        self._sessions: dict[Key, Session] = {}
        self._ready: dict[Key, tuple[ReadyNode, Link]] = {}

    def listen(self, listener: NodeListener) -> None:
        """Tell this one from now on, beginning with the nodes that are ready already."""
        self.listener = listener
        for node, _ in list(self._ready.values()):
            listener.node_ready(node)

    def ready(self, namespace: str, pool: str) -> list[ReadyNode]:
        """The pool's nodes that take calls, by rank."""
        found = [node for node, _ in self._ready.values() if (node.namespace, node.pool) == (namespace, pool)]
        return sorted(found, key=lambda node: node.rank)

    def link(self, namespace: str, node: str) -> Link | None:
        """The link to a ready node."""
        entry = self._ready.get((namespace, node))
        return entry[1] if entry else None

    def node(self, namespace: str, name: str) -> ReadyNode | None:
        """A ready node."""
        entry = self._ready.get((namespace, name))
        return entry[0] if entry else None

    def session(self, key: Key) -> Session | None:
        """What is going on with a node, if anything."""
        return self._sessions.get(key)

    def sessions(self) -> Mapping[Key, Session]:
        """All sessions."""
        return self._sessions

    def keep(self, key: Key, session: Session) -> None:
        """Remember a session. One per node: the caller has looked."""
        self._sessions[key] = session

    def forget(self, key: Key) -> Session | None:
        """Drop a session, which the caller then closes."""
        return self._sessions.pop(key, None)

    def up(self, key: Key, node: ReadyNode, link: Link) -> None:
        """A node answers: from now on it takes calls."""
        self._ready[key] = (node, link)
        self.listener.node_ready(node)

    def cordon(self, key: Key) -> None:
        """A node shall get no more calls; its link stays for those that it has."""
        if (entry := self._ready.get(key)) is not None:
            self._ready[key] = (replace(entry[0], draining=True), entry[1])
        self.listener.node_cordoned(*key)

    def down(self, key: Key) -> None:
        """A node does not answer or shall take no more calls; what it runs is not given up yet."""
        self._ready.pop(key, None)

    def lost(self, key: Key, reason: str) -> None:
        """A node is given up, with all that ran on it."""
        self._ready.pop(key, None)
        self.listener.node_lost(*key, reason)
