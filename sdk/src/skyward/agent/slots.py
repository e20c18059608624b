"""Which worker runs which attempt, and how attempts end: result, cancel, timeout, death of the worker.

An attempt waits until a worker is free, then its clock starts. Ending one early is a sequence over its grace:
SIGINT (a KeyboardInterrupt in the call) at once, SIGTERM after half of it, SIGKILL at its end, always to the
whole process group. A worker that was interrupted is never used again: what an interrupted call left behind
(threads, child processes, half-changed globals) must not meet the next call.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from skyward.agent.attempts import (
    Attempt,
    Ending,
    Listener,
    cause,
    ended_by_death,
    ended_early,
    never_started,
)
from skyward.agent.handover import call_header, give_function, steps_to_the_end
from skyward.agent.process import WorkerPlan, WorkerProcess
from skyward.agent.ranges import Ranges
from skyward.agent.slices import Slice, Slices, result_header
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.frames import Frame, FrameKind

_START_FAILURES = 3

log = logging.getLogger("skyward.agent")


class Slots:
    """All workers of the node, and the attempts that run or wait."""

    def __init__(self, plan: WorkerPlan, listener: Listener, *, reuse: bool = True) -> None:
        self.attempts: dict[str, Attempt] = {}
        self._names = Ranges()
        self._slices = Slices(listener, self._names, lambda overdue: self.end(overdue, "timeout"))
        self.largest_result: int | None = None
        """Bytes that a call which starts from now on may return; None: as many as it likes."""
        self._plan = plan
        self._listener = listener
        self._reuse = reuse
        self._waiting: deque[Attempt] = deque()
        self._free: list[tuple[WorkerProcess, int]] = []
        self._live: set[WorkerProcess] = set()
        self._early_deaths = 0
        self._stderr_tail = b""
        self._ahead: str | None = None
        """What workers are told of the end of the machine."""
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def size(self) -> int:
        """How many attempts can run at once."""
        return self._plan.workers * self._plan.threads

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self.attempts) - len(self._waiting)

    @property
    def queued(self) -> int:
        """How many attempts wait for a slot."""
        return len(self._waiting)

    async def run(self) -> None:
        """Keep all workers alive. Cancel to end; `kill` ends the workers."""
        async with asyncio.TaskGroup() as group:
            for index in range(self._plan.workers):
                group.create_task(self._keep(index), name=f"worker-{index}")

    async def idle(self) -> None:
        """Wait until no attempt runs or waits."""
        await self._idle.wait()

    def kill(self) -> None:
        """End all workers at once."""
        for worker in self._live:
            worker.kill()

    def submit(self, attempt: Attempt) -> None:
        """Run this attempt as soon as a slot is free."""
        self.attempts[attempt.id] = attempt
        self._names.add(attempt.id, attempt.end if isinstance(attempt, Slice) else 1)
        self._idle.clear()
        self._waiting.append(attempt)
        self._assign()

    def find(self, name: str, count: int = 1) -> Attempt | None:
        """The attempt, or the slice with one of the `count` items from `name` on."""
        known = self._names.find(name, count)
        return None if known is None else self.attempts[known]

    def held(self) -> list[tuple[str, int | None]]:
        """The attempts that run or wait; of a slice its first item without an outcome, and the count."""
        held: list[tuple[str, int | None]] = []
        for attempt in self.attempts.values():
            if not isinstance(attempt, Slice):
                held.append((attempt.id, None))
            elif attempt.next < attempt.end:
                held.append((attempt.name(attempt.next), attempt.end - attempt.next))
        return held

    def give_back(self, attempt: Attempt) -> None:
        """Give back what has not begun of a slice, or a call that waits."""
        if attempt.worker is None:
            self._waiting.remove(attempt)
            self._return_all(attempt)
        elif isinstance(attempt, Slice) and not attempt.is_asked_back:
            attempt.is_asked_back = True
            if self._plan.threads > 1:
                attempt.worker.send(Frame(FrameKind.CANCEL, {"attempt": attempt.id, "rest": True}))
            else:
                attempt.worker.tell(f"rest {attempt.id}")

    def limit(self, attempt: Attempt, timeout: float | None) -> None:
        """It may run so long from its start; one that was told to end ends nevertheless."""
        attempt.header["timeout"] = timeout
        if attempt.worker is not None and attempt.ending is None:
            attempt.stop_timers()
            self._watch(attempt)

    def end(self, attempt: Attempt, why: Ending, grace: float | None = None) -> None:
        """End a running attempt, gently first. A waiting call ends at once; a waiting slice comes back."""
        if attempt.worker is None:
            self._waiting.remove(attempt)
            if isinstance(attempt, Slice):
                self._return_all(attempt)
                return
            attempt.ending = why
            attempt.started = time.time()
            self._finish(attempt, ended_early(attempt, None))
            return
        if attempt.ending is None:
            attempt.ending = why
            if isinstance(attempt, Slice):
                attempt.box.condemn(attempt.condemned)
            self._interrupt(attempt, attempt.worker, attempt.grace if grace is None else grace)
        elif isinstance(attempt, Slice) and attempt.condemned is not None:
            attempt.condemned = None  # not only the item whose time is up
            attempt.box.condemn(None)

    def announce(self, reason: str, left: float) -> None:
        """Have all calls know, those to come as well, that the machine is gone in so many seconds. The first
        word counts: who says the same later knows no better."""
        if self._ahead is None and reason.isidentifier():
            self._ahead = f"leaving {reason} {time.monotonic() + left:.3f}"
            for worker in self._live:
                worker.tell(self._ahead)

    def hold(self, attempt: str, held: bool) -> None:
        """Have what an attempt prints wait, or no longer; one that is being ended never waits."""
        running = self.find(attempt)
        if running is None or running.worker is None or (held and running.ending is not None):
            return
        if self._plan.threads > 1:
            running.worker.send(Frame(FrameKind.FLOW, {"attempt": attempt, "held": held}))
        else:
            running.worker.hold(held)

    def pass_on(self, frame: Frame) -> None:
        """Have a frame of a stream reach its call. One that nobody reads has its grace to end by itself."""
        attempt = self.attempts.get(frame.header["attempt"])
        if attempt is None or (attempt.worker is None and not frame.header.get("close")):
            return
        if attempt.worker is None:
            self.end(attempt, "cancelled")
            return
        attempt.worker.send(frame)
        if frame.header.get("close") and attempt.ending is None:
            loop = asyncio.get_running_loop()
            attempt.timers.append(loop.call_later(attempt.grace, self.end, attempt, "cancelled"))

    def needed_blobs(self) -> set[str]:
        """Digests of blobs that attempts still need."""
        needed: set[str] = set()
        for attempt in self.attempts.values():
            header = attempt.header
            needed.update(name for key in ("function", "args") if (name := header.get(key)))
            needed.update(attempt.blobs)
        return needed

    def _interrupt(self, attempt: Attempt, worker: WorkerProcess, grace: float) -> None:
        attempt.stop_timers()
        self.hold(attempt.running if isinstance(attempt, Slice) else attempt.id, False)
        loop = asyncio.get_running_loop()
        for delay, step in steps_to_the_end(attempt, worker, grace, threads=self._plan.threads):
            if delay <= 0:
                step()
            else:
                attempt.timers.append(loop.call_later(delay, self._go_on, attempt, step))

    def _go_on(self, attempt: Attempt, step: Callable[[], None]) -> None:
        """The next step of an end, unless the item whose time was up has ended by itself."""
        if isinstance(attempt, Slice) and attempt.has_moved_on:
            self._slices.spare(attempt)
            self._slices.watch(attempt)
        else:
            step()

    async def _keep(self, index: int) -> None:
        """Replace the worker of this index whenever it ends, slower if it ends before it was ready."""
        while True:
            worker = WorkerProcess(index, self._on_frame, self._on_output)
            try:
                await worker.start(self._plan)
            except OSError as error:
                self._listener.notice("WorkerCannotStart", f"a worker process cannot be started: {error}")
                await asyncio.sleep(1)
                continue
            self._live.add(worker)
            if self._ahead is not None:
                worker.tell(self._ahead)
            try:
                status = await worker.ended()
            finally:
                self._live.discard(worker)
                self._free = [entry for entry in self._free if entry[0] is not worker]
            self._on_death(worker, status)
            if not worker.ready and not worker.retiring:
                await asyncio.sleep(min(0.2 * 2**self._early_deaths, 10))

    def _on_death(self, worker: WorkerProcess, status: int) -> None:
        for attempt in list(worker.running.values()):
            info = ended_early(attempt, None) if attempt.ending else ended_by_death(attempt, status)
            if isinstance(attempt, Slice):
                self._slices.collect(attempt)
                self._slices.close(attempt, attempt.box.begun, info)
                self._return_all(attempt)
            else:
                self._finish(attempt, info)
        self._listener.worker_gone(worker.pid)
        if worker.ready or worker.retiring:
            return
        self._early_deaths += 1
        tail = self._stderr_tail.decode("utf-8", "replace").strip()
        self._stderr_tail = b""
        message = f"a worker ended with {cause(status)} before it was ready: {tail}"
        log.error(message)
        self._listener.notice("WorkerCannotStart", message)
        if self._early_deaths >= _START_FAILURES:
            for attempt in list(self._waiting):
                self._waiting.remove(attempt)
                attempt.started = time.time()
                self._never_start(attempt, never_started(message))

    def _never_start(self, attempt: Attempt, error: ErrorInfo) -> None:
        if not isinstance(attempt, Slice):
            self._finish(attempt, error)
            return
        while attempt.next < attempt.end:
            self._slices.fail_next(attempt, error)
        self._forget(attempt)

    def _on_output(self, worker: WorkerProcess, stream: str, data: bytes) -> None:
        running = next(iter(worker.running.values()), None)
        owner = worker.last if running is None else running.id
        if isinstance(running, Slice):
            self._slices.output(running, stream, data)
        elif owner is not None:
            self._listener.output(owner, stream, data)
        elif stream == "stderr":
            self._stderr_tail = (self._stderr_tail + data)[-2000:]

    def _on_frame(self, worker: WorkerProcess, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.RESULT if "slice" in frame.header:
                self._on_items(worker, frame)
            case FrameKind.RESULT:
                self._on_result(worker, frame)
            case FrameKind.REFUSED:
                self._on_rest(worker, frame.header["slice"], frame.header["place"])
            case FrameKind.LOG:
                self._listener.output(frame.header["attempt"], frame.header["stream"], bytes(frame.body))
            case FrameKind.ITEM | FrameKind.NEED:
                self._listener.streamed(frame)
            case FrameKind.WELCOME:
                worker.ready = True
                self._early_deaths = 0
                self._free += ((worker, slot) for slot in range(self._plan.threads))
                self._assign()
            case _:
                log.error("worker %d sent %s", worker.index, frame.kind.name)

    def _on_result(self, worker: WorkerProcess, frame: Frame) -> None:
        attempt = worker.running.get(frame.header["attempt"])
        if attempt is None:
            return
        worker.empty_pipes()
        worker.hold(False)
        interrupted = attempt.ending is not None
        if interrupted and (frame.header["interrupted"] or not frame.header["ok"]):
            self._finish(attempt, ended_early(attempt, frame.header.get("error")), frame.header["duration"])
        else:
            self._complete(attempt, frame.header, bytes(frame.body))
        self._use_again(worker, attempt.slot, interrupted=interrupted)

    def _on_items(self, worker: WorkerProcess, frame: Frame) -> None:
        header = frame.header
        attempt = worker.running.get(header["slice"])
        if not isinstance(attempt, Slice):
            return
        worker.empty_pipes()
        if header.get("interrupted") and attempt.ending is not None:
            error = ended_early(attempt, header.get("error"))
            self._slices.fail_next(attempt, error, header["duration"])
        else:
            self._slices.take(attempt, header, bytes(frame.body))
        if "begun" in header:
            self._on_end_of_slice(worker, attempt, header["begun"])

    def _on_end_of_slice(self, worker: WorkerProcess, attempt: Slice, begun: int) -> None:
        interrupted = attempt.ending is not None
        self._slices.close(attempt, begun, ended_early(attempt, None) if interrupted else None)
        worker.hold(False)
        worker.last = attempt.running
        if self._reuse or interrupted or attempt.is_asked_back or attempt.next == attempt.end:
            self._return_all(attempt)
        else:  # each item gets a worker of its own
            del worker.running[attempt.id]
            attempt.stop_timers()
            attempt.worker = None
            self._waiting.appendleft(attempt)
        self._use_again(worker, attempt.slot, interrupted=interrupted)

    def _on_rest(self, worker: WorkerProcess, name: str, place: int) -> None:
        """A worker begins nothing from this place on. If it began nothing at all, its next word is that the
        slice is over, and the name of the slice is free only then."""
        attempt = worker.running.get(name)
        if isinstance(attempt, Slice) and place > 0:
            self._slices.give_back(attempt, place)

    def _use_again(self, worker: WorkerProcess, slot: int, *, interrupted: bool) -> None:
        if self._plan.threads == 1 and (interrupted or not self._reuse):
            worker.kill()
        elif not worker.retiring:
            self._free.append((worker, slot))
        self._assign()

    def _assign(self) -> None:
        while self._waiting and self._free:
            worker, slot = self._free.pop()
            self._hand_over(self._waiting.popleft(), worker, slot)

    def _hand_over(self, attempt: Attempt, worker: WorkerProcess, slot: int) -> None:
        is_first = not attempt.started
        attempt.worker, attempt.slot = worker, slot
        attempt.started, attempt.begun = time.time(), time.monotonic()
        worker.running[attempt.id] = attempt
        worker.last = attempt.id
        give_function(attempt, worker)
        header, body = call_header(attempt, worker, self._plan, self.largest_result), attempt.body
        if isinstance(attempt, Slice):
            part, body = attempt.part(attempt.end if self._reuse else 1)
            header.update(part)
        worker.send(Frame(FrameKind.CALL, header, body))
        if self._reuse or not isinstance(attempt, Slice):
            attempt.body = b""
        self._watch(attempt)
        if is_first:
            self._listener.started(attempt)

    def _watch(self, attempt: Attempt) -> None:
        if isinstance(attempt, Slice):
            self._slices.watch(attempt)
        elif (timeout := attempt.timeout) is not None:
            loop, left = asyncio.get_running_loop(), attempt.begun + timeout - time.monotonic()
            attempt.timers.append(loop.call_later(max(0.0, left), self.end, attempt, "timeout"))

    def _complete(self, attempt: Attempt, answer: dict[str, Any], body: bytes) -> None:
        self._forget(attempt)
        header = result_header(attempt.id, attempt.started, answer)
        self._listener.finished(attempt, header, body, answer.get("file"))

    def _finish(self, attempt: Attempt, error: ErrorInfo, duration: float | None = None) -> None:
        """End an attempt that brought no result of its own."""
        begun = attempt.begun
        took = duration if duration is not None else time.monotonic() - begun if begun else 0.0
        answer = {"ok": False, "duration": max(0.0, took), "size": 0, "error": error.to_json()}
        self._complete(attempt, answer, b"")

    def _return_all(self, attempt: Attempt) -> None:
        """The attempt is over here; what did not run of it comes back."""
        self._forget(attempt)
        if isinstance(attempt, Slice):
            self._slices.give_back(attempt, attempt.next)
        else:
            self._listener.returned(attempt.id, 1)

    def _forget(self, attempt: Attempt) -> None:
        attempt.stop_timers()
        self.attempts.pop(attempt.id, None)
        self._names.discard(attempt.id)
        if attempt.worker is not None:
            attempt.worker.running.pop(attempt.id, None)
        if not self.attempts:
            self._idle.set()
