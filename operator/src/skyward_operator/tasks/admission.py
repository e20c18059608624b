"""From a live task to a job in the scheduler: what has to be there first, and how long that may take."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import End, Wait
from skyward_operator.tasks.lanes import Job
from skyward_operator.tasks.ranges import Span

if TYPE_CHECKING:
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room


class Admission:
    """Lets tasks in."""

    def __init__(self, floor: Floor, completion: Completion, handout: Handout) -> None:
        self._floor = floor
        self._completion = completion
        self._handout = handout

    def arm(self, live: LiveTask) -> None:
        """Start the clocks of a task that waits. One that is seen to be made is new, whatever the API server
        says the time is; only one that was there before this operator has an age by it."""
        work = live.work
        age = 0.0 if self._floor.started else self._floor.now() - work.created
        live.queued = self._floor.context.clock.monotonic() - age
        self.arm_queue(live)
        if not self._floor.payloads.is_present(work):
            # from now, not from the creation: whoever uploads could not while no operator was there
            self.payload_progressed(live)
            self._await_payload(live)
            if not self._floor.started:
                job = self._floor.custody.recall_payload(live, self.payload_progressed, self._recalled)
                self._floor.context.supervisor.spawn(f"payload of {work.name}", job)

    def arm_queue(self, live: LiveTask) -> None:
        """Have a task end that waits for too long, by the queue timeout that it has now."""
        limit = live.work.queue_seconds
        if limit is not None and live.started is None:
            left = live.queued + limit - self._floor.context.clock.monotonic()
            self._floor.later(live, max(0.0, left), lambda: self._queued_too_long(live, limit))

    def payload_progressed(self, live: LiveTask) -> None:
        """Bytes of a task's payload arrive."""
        live.payload_heard = self._floor.context.clock.monotonic()

    def admit(self, room: Room, live: LiveTask) -> None:
        """Submit a task's calls, or note what it waits for, or end it."""
        if live.ending is not None or live.submitted:
            return
        present = self._floor.payloads.is_present(live.work)
        verdict = decide.admission(live.work, room.view, present, room.pythons)
        match verdict:
            case End():
                self._completion.stop(live, verdict)
            case Wait():
                live.waiting = verdict.phase, verdict.reason, verdict.message
            case _ if room.open:
                self._submit(room, live)
            case _:
                self.explain(room, live)

    def _recalled(self, live: LiveTask) -> None:
        """The payload came back from the store."""
        if self._floor.started:
            room = self._floor.room_of(live)
            self.admit(room, live)
            self._handout.hand_out(room)

    def explain(self, room: Room, live: LiveTask) -> None:
        """Find out again what an admitted task waits for."""
        if room.view is not None and (live.submitted or not room.open):
            if live.open is not None and not live.open.calls:
                there = live.open.caller is not None
                live.waiting = (
                    TaskPhase.RUNNING,
                    TaskReason.AWAITING_CALLS if there else TaskReason.AWAITING_CALLER,
                    "open: no call waits or runs" if there else "its client is not connected",
                )
                return
            wait = decide.waiting(live.work, room.view, room.scheduler.occupancy(), len(room.awaited))
            live.waiting = wait.phase, wait.reason, wait.message

    def _submit(self, room: Room, live: LiveTask) -> None:
        work = live.work
        pending = live.unhandled()
        if work.broadcast:
            pending = iter(() if live.members else (Span(0),))
        job = Job(
            work.uid, pending, work.priority, work.rank, work.broadcast, work.parallelism,
            in_flight=len(live.flights),
        )  # fmt: skip
        if live.total > 1 or live.open is not None:
            configured, several = room.view.buffer if room.view else 0, live.in_slices
            how = decide.slices(live.mean_seconds, live.largest, configured, several=several)
            job.buffer, job.size, job.least = how.buffer, how.size, how.least
            job.fits = partial(self._floor.payloads.fits, work) if several else None
        live.submitted = True
        if live.spreads:
            room.spreading.add(work.uid)
        room.scheduler.submit(job)
        if live.members:
            for span in list(live.unhandled()):
                for index in range(span.first, span.last + 1):
                    self._handout.requeue(room, live, Span(index))
        self._completion.complete_if_done(live)

    def _queued_too_long(self, live: LiveTask, limit: int) -> None:
        if live.work.queue_seconds != limit:
            return  # it was changed, and armed anew
        if live.started is None and not live.flights:
            self.explain(self._floor.room_of(live), live)
            awaited = live.waiting[2] or live.waiting[1]
            text = f"no call started within {limit} s; {awaited}"
            self._completion.stop(live, End(TaskPhase.FAILED, TaskReason.QUEUE_TIMEOUT, text))

    def _await_payload(self, live: LiveTask) -> None:
        """End a task whose payload is not there and has stopped coming, or look again later."""
        if self._floor.payloads.is_present(live.work):
            return
        quiet = self._floor.context.clock.monotonic() - live.payload_heard
        if quiet < decide.PAYLOAD_SECONDS:
            self._floor.later(live, decide.PAYLOAD_SECONDS - quiet, lambda: self._await_payload(live))
            return
        text = f"its payload was not uploaded: nothing of it came for {decide.PAYLOAD_SECONDS:.0f} s"
        self._completion.stop(live, End(TaskPhase.FAILED, TaskReason.PAYLOAD_INVALID, text))
