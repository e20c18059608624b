"""What a task has cost: the time that its calls took on slots, at their share of the node's price.

It says who used what a pool paid for, and keeps the budgets of tasks. It is no bill: time in which a slot
waits is the pool's. What a task has cost stands in its status: a restart goes on from what was written last.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import NODE
from skyward.contract.reasons import TaskPhase, TaskReason
from skyward_operator.tasks.decide import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.ledger import LiveTask

LOOK_SECONDS: Final = 2.0
"""A task with a budget is looked at this often while it lives."""
_FREE: Final = Decimal(0)


class Costs:
    """Charges tasks."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self.stop: Callable[[LiveTask, End], None]
        """What to do with a task that has no money left."""

    def took(self, live: LiveTask, node: str, seconds: float) -> None:
        """Calls of this task were on a slot of this node for so long."""
        if rate := self._rate(live, node):
            live.cost += rate * Decimal(f"{max(0.0, seconds):.3f}")

    def watch(self, live: LiveTask) -> None:
        """Keep the budget of a task, if it has one."""
        if live.work.max_cost is not None:
            self._look(live)

    def _look(self, live: LiveTask) -> None:
        most = live.work.max_cost
        if most is None or live.ending is not None:
            return
        now, running, reserved = self._floor.now(), _FREE, _FREE
        for attempt in live.flights:
            rate = self._rate(live, attempt.node)
            if attempt.started is not None:
                running += rate * Decimal(f"{max(0.0, now - attempt.started):.3f}")
            reserved += rate * Decimal(f"{live.work.grace_seconds + LOOK_SECONDS:.3f}")
        spent = live.cost + running
        if spent + reserved >= most and spent:
            text = (
                f"spec.budget.maxTotal is ${most:f}: its calls have cost ${spent:.6f}, and ${reserved:.6f} "
                "are kept for their end"
            )
            self.stop(live, End(TaskPhase.FAILED, TaskReason.BUDGET_EXCEEDED, text))
        else:
            self._floor.later(live, LOOK_SECONDS, lambda: self._look(live))

    def _rate(self, live: LiveTask, node: str) -> Decimal:
        """Dollars per second of one slot of a node."""
        obj = self._floor.context.store.get(NODE, live.work.namespace, node)
        status: dict[str, Any] = (obj or {}).get("status") or {}
        billing = status.get("billing") or {}
        prices = billing.get("prices") or ()
        hourly = prices[-1]["hourlyPrice"] if prices else billing.get("hourlyPrice")
        if not hourly:
            return _FREE
        return Decimal(hourly) / (3600 * max(1, int(status.get("slots") or 1)))
