"""One call through the whole system, beside the least that could be done for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import floor
from benchmarks.figures import quantile, slower, timed
from benchmarks.row import Ahead, Within
from benchmarks.starts import echo, one_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.row import Goal, Row
    from benchmarks.stage import Stage

ROUNDS: Final = 5
CALLS: Final = 100
_GOALS: Final[dict[int, tuple[Goal, ...]]] = {50: (Within(1.5), Ahead(("dask", "upstream")))}


def one_call(stage: Stage) -> Iterator[Row]:
    """`echo(number) >> pool`, one after the other, in turn with as many of the floor."""
    taken: list[float] = []
    bare: list[float] = []
    endpoint = stage.endpoint
    with one_node() as pool:
        assert [echo(number) >> pool for number in range(20)] == list(range(20))
        for _ in range(stage.amount(ROUNDS, 1)):
            for number in range(CALLS):
                with timed(taken):
                    assert echo(number) >> pool == number
            bare += floor.round_trips(endpoint, CALLS)
    for percent in (50, 99):
        yield slower(
            f"one call, p{percent}",
            quantile(taken, percent),
            quantile(bare, percent),
            "create, watch, SSH, status, watch",
            *_GOALS.get(percent, ()),
            peer=f"one call, p{percent}",
        )
