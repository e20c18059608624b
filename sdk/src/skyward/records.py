"""How each call of a task ended: by whom, when, at which attempt, and with what error. Never its value.

Read from the heads of the outcomes; nothing is unpickled, so anybody's task may be looked at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from skyward.reorder import in_order
from skyward.wire.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class CallError:
    """What a call failed with, in words. `type` is qualified unless it is a builtin; `reason` is that of
    `docs/errors.md`."""

    type: str
    message: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class CallRecord:
    """How one call ended.

    `attempts` is how often it was begun; of one that never was it is 0, `started` is None and `node` empty.
    `seconds` is how long its last attempt took, by the clock of the node.
    """

    index: int
    ok: bool
    attempts: int
    node: str
    rank: int
    started: datetime | None
    seconds: float
    error: CallError | None


def records_of(outcomes: Iterable[Outcome], *, ordered: bool) -> Iterator[CallRecord]:
    """The record of each outcome, in the order of the calls or as they come; their bodies are let go of."""
    heads = (replace(outcome, body=b"", value=None) for outcome in outcomes)
    return map(_record, in_order(heads) if ordered else heads)


def _record(outcome: Outcome) -> CallRecord:
    info, error = outcome.error, None
    if info is not None:
        error = CallError(info.full_type, info.message, info.reason, info.traceback)
    return CallRecord(
        outcome.index,
        outcome.ok,
        outcome.number,
        outcome.node,
        outcome.rank,
        datetime.fromtimestamp(outcome.started, UTC) if outcome.started else None,
        outcome.duration,
        error,
    )
