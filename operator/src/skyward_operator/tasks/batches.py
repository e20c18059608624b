"""Batches: the ends of some calls of a slice in one frame, with the records that their worker wrote.

What returned is appended as it is; only what failed is looked into, call by call. A batch of which anything
is unexpected (an attempt that was given up meanwhile, a call that has ended elsewhere) is taken apart.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskReason
from skyward.wire.envelopes import ErrorInfo, attempt_id, parse_attempt
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import Outcome, cut_records
from skyward_operator.tasks import decide
from skyward_operator.tasks.ledger import Failure, LiveTask, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.tasks.endings import Endings
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.floor import Floor

logger = logging.getLogger(__name__)

_NUMBERS: Final = (float, int)
_LATEST: Final = 1e11
"""Seconds: beyond this neither a time nor a duration can be written down."""

type Records = list[tuple[dict[str, Any], int, int, int]]
"""Header, and where head, body and end are, of each."""


class Batches:
    """Takes the ends of several calls at once."""

    def __init__(self, floor: Floor, endings: Endings) -> None:
        self._floor = floor
        self._endings = endings

    def ended(self, live: LiveTask, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """A batch of outcomes from this node."""
        name = str(header["attempt"])
        _, first, number = parse_attempt(name)
        count, failed = int(header["count"]), set(header["failed"])
        try:
            records = list(cut_records(body))
            _check(records, first, count, failed)
        except PackageError as error:
            logger.error("the outcomes in %s of %s cannot be read: %s", name, node, error)
            records = _unreadable(first, count, f"the outcome that came from {node} cannot be read: {error}")
            failed, body = set(range(count)), b""
        receipt = live.unacknowledged[node, name] = Receipt(node, name)
        attempt = live.flights.get(first)
        if (
            attempt is not None
            and (attempt.node, attempt.number) == (node, number)
            and count <= attempt.count
            and body
            and not live.any_ended(first, first + count - 1)
        ):
            self._as_expected(live, attempt, records, failed, body, receipt)
        else:
            self._one_by_one(live, node, number, records, body, receipt)
        self._endings.durable(live, receipt)()

    def _as_expected(
        self,
        live: LiveTask,
        attempt: Attempt,
        records: Records,
        failed: set[int],
        body: bytes,
        receipt: Receipt,
    ) -> None:
        room, first, count = self._floor.room_of(live), attempt.index, len(records)
        pieces = {place: attempt.piece(first + place) for place in failed}
        begun, over, sent = records[0][0]["started"], records[-1][0], attempt.sent
        seconds = max(0.0, over["started"] + over["duration"] - begun)
        started = decide.placed(begun, seconds, sent, self._floor.now())
        live.started = min(live.started or started, started)
        live.ended = max(live.ended or 0.0, started + seconds)
        live.took(seconds, count)
        self._floor.costs.took(live, attempt.node, seconds)
        self._endings.paced(live, attempt.node, seconds / count)
        self._floor.advance(room, live, attempt, count)
        again = set()
        for place in sorted(failed):
            error = ErrorInfo.from_json(records[place][0].get("error") or {})
            if self._endings.is_outcome(room, live, pieces[place], error):
                self._floor.trace(live, pieces[place], error.reason)
                live.failed.add(first + place)
                live.first_failure = live.first_failure or Failure(first + place, error, attempt.node)
            else:
                again.add(place)
        borders = sorted({-1, count} | failed)
        for low, high in pairwise(borders):
            if high - low > 1:
                live.succeeded.add_range(first + low + 1, first + high - 1)
                live.forget(first + low + 1, first + high - 1)
        for place in failed - again:
            live.forget(first + place, first + place)
        kept = body if not again else b"".join(
            body[start:end] for place, (_, start, _, end) in enumerate(records) if place not in again
        )  # fmt: skip
        if kept:
            receipt.waits += 1
            if live.results.add_records(kept, self._endings.durable(live, receipt)):
                self._endings.drain(live)
        self._endings.after(live)

    def _one_by_one(
        self, live: LiveTask, node: str, number: int, records: Records, body: bytes, receipt: Receipt
    ) -> None:
        room = self._floor.room_of(live)
        for fields, _, start, end in records:
            index = int(fields["index"])
            name = attempt_id(live.work.uid, index, number)
            attempt = live.flights.at(index)
            if attempt is not None and (attempt.node, attempt.number) == (node, number):
                attempt = self._floor.part(room, live, attempt, index)
                self._endings.ended(live, attempt, fields, body[start:end], receipt)
            else:
                self._endings.unexpected(live, name, node, fields, body[start:end], receipt)


def _unreadable(first: int, count: int, words: str) -> Records:
    """Records of calls that have ended, and nobody knows how."""
    error = decide.system_error(TaskReason.INTERNAL_ERROR, words).to_json()
    return [({"index": first + place, "ok": False, "error": error}, 0, 0, 0) for place in range(count)]


def _check(records: Records, first: int, count: int, failed: set[int]) -> None:
    """Raise PackageError unless these are the records that their batch speaks of."""
    if len(records) != count:
        raise PackageError(f"{len(records)} records of {count} calls")
    for place, (fields, *_) in enumerate(records):
        try:
            said = fields["index"], fields["ok"]
            begun, took, texts = fields["started"], fields["duration"], (fields["node"], fields["attempt"])
        except KeyError as missing:
            raise PackageError(f"the record of call {first + place} has no {missing}") from None
        if said != (first + place, place not in failed):
            raise PackageError(f"the record of call {first + place} is of another one, or ended otherwise")
        numbers = type(begun) in _NUMBERS and type(took) in _NUMBERS
        if not numbers or not 0 <= begun < _LATEST or not 0 <= took < _LATEST or {*map(type, texts)} != {str}:
            raise PackageError(f"the record of call {first + place} does not say when and where it ran")
        if place in failed:
            Outcome.from_fields(fields)
