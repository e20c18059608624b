"""What random campaigns have in common: rounds by seed, some beside each other, a summary, a command line."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol
from unittest import mock

from skyward_operator.providers import http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

IMPATIENT: Final = 0.5
"""Seconds after which an answer of the cloud counts as lost; slow orders still buy then."""


class Summed(Protocol):
    """What a campaign came to. Printing it shows it."""

    wrong: list[str]


async def play_all[S: Summed](
    seeds: Iterable[int],
    summary: S,
    play: Callable[[int, S], Awaitable[list[str]]],
    *,
    at_once: int,
    loud: bool = False,
) -> S:
    """Play the round of each seed, so many of them beside each other. `play` says what was wrong in it."""
    slots = asyncio.Semaphore(at_once)

    async def one(seed: int) -> None:
        async with slots:
            began = time.monotonic()
            wrong = await play(seed, summary)
            summary.wrong += wrong
            if loud or wrong:
                print(f"seed {seed}: {time.monotonic() - began:.1f} s {wrong or 'well'}", flush=True)

    with mock.patch.object(http, "REQUEST_SECONDS", IMPATIENT):
        async with asyncio.TaskGroup() as group:
            for seed in seeds:
                group.create_task(one(seed))
    return summary


def command(about: str | None, run: Callable[..., Coroutine[Any, Any, Summed]]) -> None:
    """The command line of a campaign: play it and show what it came to."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    summary = asyncio.run(run(range(given.first, given.first + given.seeds), loud=True))
    print(summary)
    print(f"{time.monotonic() - began:.0f} s")
    raise SystemExit(bool(summary.wrong))
