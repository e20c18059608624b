"""Which call goes to which node of one pool, next.

Pure: no clock, no I/O, no objects of Kubernetes. Whoever owns it reports what happened (a node came, a
call ended) and then asks `assign()` for what to send. Nothing here looks at every task or every call:
an assignment costs a heap operation, whatever the backlog.

What is handed out is a slice: some calls of a job in a row, which one slot runs one after the other. It is
one call unless the job is a map whose calls are known to be short. A slice in flight is named by its first
call that has not ended.

The rules:

- A node never holds more slices than its slots, except for maps: those may have `buffer` more slices per
  slot waiting on the node, which hides the latency of the link.
- A slice is no larger than half of what is left, over all slots: the last ones are small, so that all slots
  end together, but not smaller than is worth a frame.
- A higher priority goes first. Within one priority the tasks take turns, one slice each, so that a single
  call never waits for the whole of a large map before it.
- A broadcast (gang) starts everywhere at once or not at all: while its turn has come and some node has no
  free slot, one slot of each node stays free for it once it is. Calls behind it have the others: they never
  make it wait longer, and wait for it only where there is nothing else. Two broadcasts start one after the
  other, so they never wait for each other.
- A call is in exactly one place: waiting, in flight, or out (ended, or kept by the owner for a later
  retry).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward_operator.tasks.lanes import Lane, Queue
from skyward_operator.tasks.ranges import Span

if TYPE_CHECKING:
    from skyward_operator.tasks.lanes import Job


@dataclass(frozen=True, slots=True)
class Assignment:
    """Send `count` calls of job `uid`, from `index` on, to `node`."""

    uid: str
    index: int
    node: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Flight:
    """A slice that was in flight on a node that is gone, by its first call."""

    uid: str
    index: int


@dataclass(slots=True, eq=False)
class _Node:
    name: str
    rank: int
    slots: int
    open: bool = True
    version: int = 0
    flights: set[tuple[str, int]] = field(default_factory=set)

    @property
    def full(self) -> bool:
        return len(self.flights) >= self.slots

    @property
    def spare(self) -> int:
        return self.slots - len(self.flights)

    @property
    def busy(self) -> int:
        return min(self.slots, len(self.flights))


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How busy a pool is: for people and for scaling."""

    nodes: int
    slots: int
    busy: int
    jobs: int
    kept: int = 0
    """Free slots that a broadcast keeps, because other nodes have none yet."""


class Scheduler:
    """The ready slots and the waiting calls of one pool. `quorum`: nodes that a broadcast needs at least."""

    def __init__(self, quorum: int = 1) -> None:
        self.quorum = quorum
        self._nodes: dict[str, _Node] = {}
        self._ranks: dict[int, _Node] = {}
        self._load: list[tuple[float, int, int, _Node]] = []
        self._full = 0
        self._open = 0
        self._slots = 0
        self._busy = 0
        self._jobs: dict[str, Lane] = {}
        self._side_lanes: dict[str, list[Lane]] = {}
        self._flights: dict[tuple[str, int], _Node] = {}
        self._any = Queue()
        self._pinned: dict[int, Queue] = {}
        self._gangs = Queue()
        self._clock = 0

    # What happened

    def add_node(self, name: str, rank: int, slots: int, *, takes: bool = True) -> None:
        """A node takes calls from now on; again for one that is known: its slots may have changed. One that
        does not take any is there for what it has, and leaves its rank to another one."""
        known = self._nodes.get(name)
        if known is None:
            node = self._nodes[name] = _Node(name, rank, slots, open=False)
        else:
            node = known
            self._close(node)
            node.slots = slots
        if not takes:
            self._ranks.setdefault(rank, node)
            return
        self._ranks[rank] = node
        node.open = True
        self._open += 1
        self._full += node.full
        self._slots += node.slots
        self._busy += node.busy
        self._weigh(node)

    def pause_node(self, name: str) -> None:
        """No further calls for this node; what is in flight there stays in flight."""
        if (node := self._nodes.get(name)) is not None:
            self._close(node)

    def remove_node(self, name: str) -> list[Flight]:
        """The node is gone; returns the slices that went with it. The owner decides what becomes of them."""
        node = self._nodes.pop(name, None)
        if node is None:
            return []
        self._close(node)
        if self._ranks.get(node.rank) is node:
            del self._ranks[node.rank]
        lost = sorted(node.flights)
        for uid, index in lost:
            del self._flights[uid, index]
            self._landed(uid)
        node.flights.clear()
        return [Flight(uid, index) for uid, index in lost]

    def submit(self, job: Job) -> None:
        """A job joins the queue. Raises ValueError when it is there already."""
        if job.uid in self._jobs:
            raise ValueError(f"job {job.uid} was submitted twice")
        lane = self._jobs[job.uid] = Lane(job, job.pending)
        self._enqueue(lane)

    def forget(self, uid: str) -> None:
        """No further calls of this job. What is in flight keeps its slot until it is released."""
        lane = self._jobs.pop(uid, None)
        if lane is not None:
            for each in (lane, *self._side_lanes.pop(uid, ())):
                each.closed = True

    def withdraw(self, uid: str) -> list[Assignment]:
        """Forget a job; returns what is in flight. Looks at every flight of the pool: for cancelling."""
        self.forget(uid)
        return [Assignment(uid, i, node.name) for (u, i), node in self._flights.items() if u == uid]

    def adopt(self, uid: str, index: int, node: str) -> None:
        """A slice that is already in flight on a node, found there after a restart."""
        self._fly(uid, index, self._nodes[node])

    def advance(self, uid: str, index: int, to: int) -> None:
        """The calls of a slice before `to` have ended; the rest of it is in flight under that name."""
        node = self._flights.pop((uid, index), None)
        if node is not None:
            node.flights.discard((uid, index))
            node.flights.add((uid, to))
            self._flights[uid, to] = node

    def release(self, uid: str, index: int) -> bool:
        """The slice is no longer on its node; False when it was not known to be."""
        node = self._flights.pop((uid, index), None)
        if node is None:
            return False
        was_full, was_busy = node.full, node.busy
        node.flights.discard((uid, index))
        if node.open:
            self._full -= was_full - node.full
            self._busy -= was_busy - node.busy
            self._weigh(node)
        self._landed(uid)
        return True

    def requeue(self, uid: str, index: int, count: int = 1, *, rank: int | None = None) -> None:
        """Calls with the same history wait again, before the job's others; on that rank only, if given."""
        lane = self._jobs.get(uid)
        if lane is None:
            return
        job, span = lane.job, Span(index, count)
        if rank is None and not job.gang:
            lane.put_back(span)
            self._enqueue(lane)
            return
        side = Lane(job, (span,))
        self._side_lanes.setdefault(uid, []).append(side)
        queue = self._any if rank is None else self._pinned.setdefault(rank, Queue())
        queue.push(side, 0, front=True)

    def tune(self, uid: str, buffer: int, size: int = 1, least: int = 1) -> None:
        """How many slices per slot of this job may wait on a node, and how many calls make one."""
        if (lane := self._jobs.get(uid)) is not None:
            job = lane.job
            job.buffer, job.size, job.least = buffer, size, least

    def tune_node(self, uid: str, node: str, size: int) -> None:
        """How many calls make a slice of this job on one node, which is slower than others."""
        if (lane := self._jobs.get(uid)) is not None:
            lane.job.sizes[node] = size

    # What to do

    def assign(self) -> list[Assignment]:
        """Everything that can be sent now. Each of them counts as in flight from this moment."""
        assignments: list[Assignment] = []
        while step := self._step():
            assignments.extend(step)
        return assignments

    def idle(self) -> int:
        """Slots that nothing runs on and nothing waits for."""
        return 0 if self._gangs.head() or self._any.head() else self._slots - self._busy

    def waiting(self, uid: str) -> int:
        """How many calls of a job wait to be handed out."""
        lane = self._jobs.get(uid)
        return lane.waiting if lane is not None else 0

    def node_of(self, uid: str, index: int) -> str | None:
        """Where the slice that begins with this call is in flight."""
        node = self._flights.get((uid, index))
        return node.name if node else None

    def in_flight(self, node: str) -> list[tuple[str, int]]:
        """The slices in flight on a node."""
        found = self._nodes.get(node)
        return sorted(found.flights) if found else []

    def has_rank(self, rank: int) -> bool:
        """Whether a node of this rank takes calls."""
        node = self._ranks.get(rank)
        return node is not None and node.open

    def members(self) -> list[str]:
        """The nodes that take calls, by rank: what a broadcast that starts now would freeze."""
        return [node.name for node in sorted(self._nodes.values(), key=lambda n: n.rank) if node.open]

    def occupancy(self) -> Occupancy:
        """How busy the pool is."""
        kept = self._open - self._full if self._full and self._ready_gang() is not None else 0
        return Occupancy(self._open, self._slots, self._busy, len(self._jobs), kept)

    # How

    def _step(self) -> list[Assignment]:
        best: tuple[tuple[int, int], Queue, Lane, _Node | None] | None = None
        gang = self._ready_gang()
        if gang is not None and not self._full:
            best = (_turn(gang), self._gangs, gang, None)
        lane = self._any.head()
        if lane is not None and (best is None or _turn(lane) < best[0]):
            is_behind = gang is not None and _turn(gang) < _turn(lane)
            node = self._most_spare() if is_behind else self._least_loaded()
            if node is not None and self._has_room(node, lane, gang):
                best = (_turn(lane), self._any, lane, node)
        for rank in list(self._pinned):
            lane = self._pinned[rank].head()
            if lane is None:
                del self._pinned[rank]
                continue
            node = self._ranks.get(rank)
            if node is None or not node.open or not self._has_room(node, lane, gang):
                continue
            if best is None or _turn(lane) < best[0]:
                best = (_turn(lane), self._pinned[rank], lane, node)
        if best is None:
            return []
        _, queue, lane, node = best
        return self._start_gang(lane) if node is None else [self._hand_out(queue, lane, node)]

    def _ready_gang(self) -> Lane | None:
        """The broadcast whose turn comes first, if there are enough nodes for it."""
        return self._gangs.head() if 0 < self.quorum <= self._open else None

    def _has_room(self, node: _Node, lane: Lane, gang: Lane | None) -> bool:
        """Whether a node takes another slice. The last calls of a map wait for whoever is free first, unless
        they are so short that their way there takes longer. Whoever is behind a `gang` leaves it a slot."""
        if gang is not None and _turn(gang) < _turn(lane):
            return node.spare > 1
        job = lane.job
        is_last = lane.waiting <= self._slots and job.size_on(node.name) == 1
        return len(node.flights) < node.slots * (1 if is_last else 1 + job.buffer)

    def _hand_out(self, queue: Queue, lane: Lane, node: _Node) -> Assignment:
        queue.pop(lane)
        span = lane.take(self._slots, node.name)
        self._fly(lane.job.uid, span.first, node)
        if lane is self._jobs.get(lane.job.uid):
            self._enqueue(lane)
        else:
            self._side_lanes[lane.job.uid].remove(lane)
        return Assignment(lane.job.uid, span.first, node.name, span.count)

    def _start_gang(self, lane: Lane) -> list[Assignment]:
        self._gangs.pop(lane)
        lane.take(self._slots, "")
        assignments = []
        for index, name in enumerate(self.members()):
            self._fly(lane.job.uid, index, self._nodes[name])
            assignments.append(Assignment(lane.job.uid, index, name))
        return assignments

    def _enqueue(self, lane: Lane) -> None:
        job = lane.job
        if lane.queued or not lane or (job.parallelism is not None and job.in_flight >= job.parallelism):
            return
        self._clock += 1
        if job.gang:
            self._gangs.push(lane, self._clock)
        elif job.rank is not None:
            self._pinned.setdefault(job.rank, Queue()).push(lane, self._clock)
        else:
            self._any.push(lane, self._clock)

    def _fly(self, uid: str, index: int, node: _Node) -> None:
        if (uid, index) in self._flights:
            raise ValueError(f"call {index} of {uid} is in flight already")
        was_full, was_busy = node.full, node.busy
        node.flights.add((uid, index))
        self._flights[uid, index] = node
        if node.open:
            self._full += node.full - was_full
            self._busy += node.busy - was_busy
            self._weigh(node)
        if (lane := self._jobs.get(uid)) is not None:
            lane.job.in_flight += 1

    def _landed(self, uid: str) -> None:
        if (lane := self._jobs.get(uid)) is not None:
            lane.job.in_flight -= 1
            self._enqueue(lane)

    def _close(self, node: _Node) -> None:
        if node.open:
            node.open = False
            node.version += 1
            self._open -= 1
            self._full -= node.full
            self._slots -= node.slots
            self._busy -= node.busy

    def _weigh(self, node: _Node) -> None:
        """Note a node's new load. Older notes stay in the heap until they surface and are dropped."""
        node.version += 1
        self._clock += 1
        entry = (len(node.flights) / node.slots, self._clock, node.version, node)
        heapq.heappush(self._load, entry)
        if len(self._load) > 64 + 4 * len(self._nodes):
            self._load = [e for e in self._load if e[3].open and e[3].version == e[2]]
            heapq.heapify(self._load)

    def _least_loaded(self) -> _Node | None:
        while self._load:
            _, _, version, node = self._load[0]
            if node.open and node.version == version:
                return node
            heapq.heappop(self._load)
        return None

    def _most_spare(self) -> _Node | None:
        """The node with the most free slots: of all nodes, which only who is behind a broadcast looks at."""
        nodes = [node for node in self._nodes.values() if node.open]
        return max(nodes, key=lambda node: node.spare, default=None)


def _turn(lane: Lane) -> tuple[int, int]:
    """Lower goes first."""
    return (-lane.job.priority, lane.stamp)
