"""What the agent says to a worker about an attempt: here it is and its function, and perhaps: end it."""

from collections.abc import Callable
from typing import Any

from skyward.agent.attempts import Attempt
from skyward.agent.process import WorkerPlan, WorkerProcess
from skyward.wire.frames import Frame, FrameKind

_FUNCTIONS_PER_WORKER = 64


def give_function(attempt: Attempt, worker: WorkerProcess) -> None:
    """A worker is sent each function once, and told to drop the one that it used least lately."""
    digest = attempt.header.get("function")
    if digest is None:
        return
    if digest in worker.functions:
        worker.functions.move_to_end(digest)
        return
    worker.functions[digest] = None
    if attempt.function is not None:
        worker.send(Frame(FrameKind.FUNCTION, {"digest": digest}, attempt.function))
    if len(worker.functions) > _FUNCTIONS_PER_WORKER:
        oldest, _ = worker.functions.popitem(last=False)
        worker.send(Frame(FrameKind.FUNCTION, {"digest": oldest, "drop": True}))


def call_header(
    attempt: Attempt, worker: WorkerProcess, plan: WorkerPlan, largest_result: int | None
) -> dict[str, Any]:
    """The header of the CALL that a worker gets."""
    header, timeout = attempt.header, attempt.timeout
    slot = attempt.slot if plan.threads > 1 else worker.index
    place = {"worker": slot, "workers_per_node": plan.workers * plan.threads, "slot": slot}
    return {
        "attempt": attempt.id,
        "task": header.get("task", ""),
        "index": header.get("index", 0),
        "number": header.get("number", 1),
        "function": header.get("function"),
        "function_path": str(attempt.function_path) if attempt.function_path else None,
        "args_path": str(attempt.args_path) if attempt.args_path else None,
        "blobs": {digest: str(path) for digest, path in attempt.blobs.items()},
        "entry": header.get("entry"),
        "stream": header.get("stream"),
        "inputs": header.get("inputs"),
        "context": {**(header.get("context") or {}), **place},
        "largest_result": largest_result,
        "deadline": attempt.started + timeout if timeout is not None else None,
    }


def steps_to_the_end(
    attempt: Attempt, worker: WorkerProcess, grace: float, *, threads: int
) -> list[tuple[float, Callable[[], None]]]:
    """What is done to have a running attempt end, each with the seconds after which it is due."""
    if threads > 1:
        cancel = Frame(FrameKind.CANCEL, {"attempt": attempt.id, "why": attempt.ending})
        ask: list[tuple[float, Callable[[], None]]] = [
            (0, lambda: worker.send(cancel)),
            (grace / 2, lambda: worker.send(cancel)),
        ]
    else:
        worker.tell(attempt.ending or "cancelled")
        ask = [(0, worker.interrupt), (grace / 2, worker.terminate)]
    return [(grace, worker.kill), *ask]
