"""Rounds of random faults while a task runs, and what must be true after each of them.

    uv run --no-sync python -m tests.chaos.cut_campaign --seeds 300 --first 0

A round is made from its seed alone: the calls, their sizes, the cuts and the kills. What other processes do
meanwhile is not, so a seed finds the same fault again often, not always.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

from tests.chaos.cut_proxy import Cut
from tests.chaos.cut_scene import SLOTS, Call, Scene, scene

from skyward.wire.codec import loads
from skyward_operator.nodes import bootstrap, link, session, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random
    from typing import Any

MOST_BYTES: Final = 4 * 1024 * 1024
WIDE: Final = 100
"""A round of so many calls or more is of short ones, which travel in slices."""
MOST_IN_SLICE: Final = 75
"""Calls of a millisecond or more in one slice."""
KILLS: Final = {"operator": 3, "agent": 2, "worker": 2, "both": 2}
"""What is killed, and how often relative to each other; `both` is the operator and the agent."""
RETRY: Final = {"onInterruption": 20, "onException": 20, "backoffSeconds": 0}

SOON: Final = (
    (link, "PING_SECONDS", 0.3),
    (link, "SILENCE_SECONDS", 1.5),
    (link, "WELCOME_SECONDS", 2.0),
    (ssh, "CONNECT_SECONDS", 1.5),
    (ssh, "LOGIN_SECONDS", 1.5),
    (bootstrap, "SHORT_SECONDS", 2.0),
    (session, "LONGEST_PAUSE", 0.2),
)
"""The operator's patience, shortened: a broken connection is to be noticed within a round."""


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round."""

    seed: int
    calls: tuple[Call, ...]
    cuts: tuple[Cut, ...]
    kills: tuple[tuple[float, str], ...]
    """Seconds after the one before, and what is killed then."""

    @classmethod
    def of(cls, seed: int, *, kills: bool = True) -> Round:
        """The round of a seed."""
        dice = random.Random(seed)
        is_wide = dice.random() < 0.3
        make, counts = (_short_call, (WIDE, 4 * WIDE)) if is_wide else (_call, (1, 3, 6, 12))
        calls = tuple(make(dice) for _ in range(dice.choice(counts)))
        if kills and (kills := dice.random() < 0.5):
            more = 0.002 if is_wide else 0.1
            calls = tuple(replace(call, seconds=call.seconds + more) for call in calls)
        cuts = tuple(Cut.random(dice, MOST_BYTES) for _ in range(dice.randint(2, 6)))
        killed = dice.choices(list(KILLS), list(KILLS.values()), k=dice.randint(1, 2))
        planned = tuple((dice.uniform(0.0, 0.3), name) for name in killed)
        return cls(seed, calls, cuts, planned if kills else ())


def _call(dice: Random) -> Call:
    return Call(
        argument=dice.choice((10, 10, 10_000, 300_000, 1_500_000)),
        result=dice.choice((10, 10, 10_000, 300_000, 1_500_000)),
        seconds=dice.choice((0.0, 0.01, 0.05, 0.2)),
    )


def _short_call(dice: Random) -> Call:
    """One of many, which travel in slices."""
    return Call(argument=10, result=dice.choice((10, 10, 10, 1000)), seconds=dice.choice((0.0, 0.001, 0.005)))


@dataclass(slots=True)
class Summary:
    """What was done, in numbers."""

    rounds: int = 0
    calls: int = 0
    runs: int = 0
    repeated: int = 0
    """Runs beyond one for each call; each of them has an attempt on record."""
    cuts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """Faults that really happened."""
        return self.cuts.total() + self.kills.total()

    def __str__(self) -> str:
        cuts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cuts.items()))
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.cases} faults in {self.rounds} rounds and {self.seconds:.0f} s: "
            f"{self.cuts.total()} cuts ({cuts or '-'}), {self.kills.total()} kills ({kills or '-'}); "
            f"{self.calls} calls ran {self.runs} times, {self.repeated} of those repeated and on record; "
            "no result lost, none run twice in silence"
        )


class Campaign:
    """Many rounds in one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.summary = Summary()

    async def play(self, planned: Round) -> None:
        """One round, and its verdict. Raises AssertionError with the seed."""
        scene, name, began = self.scene, f"round-{planned.seed}", time.monotonic()
        cuts_before = scene.proxy.made.copy()
        try:
            scene.proxy.cuts.extend(planned.cuts)
            scene.proxy.cut_now("close")  # the next connection takes the first of the round's cuts
            await scene.submit(name, planned.calls, retry=RETRY)
            killed = await self._kill(planned, name)
            status = await scene.ends(name)
            scene.proxy.cuts.clear()
            await scene.settles()
            self._judge(planned, name, status, killed)
        except AssertionError as error:
            error.add_note(
                f"in round {replace(planned, calls=planned.calls[:12])} of {len(planned.calls)} calls"
            )
            raise
        finally:
            scene.proxy.release()
        await scene.forget(name)
        self.summary.rounds += 1
        self.summary.cuts += scene.proxy.made - cuts_before
        self.summary.kills += killed
        self.summary.seconds += time.monotonic() - began

    async def _kill(self, planned: Round, name: str) -> Counter[str]:
        killed: Counter[str] = Counter()
        for pause, victim in planned.kills:
            await asyncio.sleep(pause)
            if victim in ("agent", "both"):
                killed["agent"] += self.scene.kill("skyward.agent")
            if victim == "worker":
                killed["worker"] += self.scene.kill("skyward.agent.worker")
            if victim in ("operator", "both"):
                await self.scene.restart_operator()
                killed["operator"] += 1
        return killed

    def _judge(self, planned: Round, name: str, status: dict[str, Any], killed: Counter[str]) -> None:
        assert status["phase"] == "Succeeded", status
        outcomes = {outcome.index: outcome for outcome in self.scene.outcomes(name)}
        assert sorted(outcomes) == list(range(len(planned.calls)))
        for index, call in enumerate(planned.calls):
            given = call.argument, random.Random(index).randbytes(call.result)
            assert loads(outcomes[index].body) == given, f"the value of call {index} is another one"
        runs = self.scene.ledger.runs(name)
        assert sorted(runs) == list(range(len(planned.calls))), "a result came without a run"
        for index, attempts in runs.items():
            assert max(attempts.values()) == 1, f"call {index}: an attempt ran twice: {attempts}"
        recorded = {
            (each["index"] + place, each["attempt"])
            for each in status["attempts"]["recent"]
            for place in range(each.get("count", 1))
        }
        for index, attempts in runs.items():
            for attempt in sorted(attempts)[:-1]:
                assert (index, attempt) in recorded, f"attempt {attempt} of call {index} is not on record"
        total = sum(attempts.total() for attempts in runs.values())
        if not killed["agent"] and not killed["worker"]:
            assert total == len(planned.calls), f"a call ran again without a kill: {runs}"
        # An agent takes along the outcomes of a slice that waited for one another: the slots' share of those.
        most = 1 if len(planned.calls) < WIDE else MOST_IN_SLICE
        assert total - len(planned.calls) <= most * SLOTS * killed.total()
        self.summary.calls += len(planned.calls)
        self.summary.runs += total
        self.summary.repeated += total - len(planned.calls)


@contextmanager
def impatient() -> Iterator[None]:
    """Shorten the operator's patience while the body runs."""
    patches = [mock.patch.object(module, name, value) for module, name, value in SOON]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


async def run(folder: Path, seeds: range, *, kills: bool = True, loud: bool = False) -> Summary:
    """All rounds of these seeds."""
    with impatient():
        async with scene(folder) as place:
            campaign = Campaign(place)
            for seed in seeds:
                await campaign.play(Round.of(seed, kills=kills))
                if loud and not campaign.summary.rounds % 20:
                    print(campaign.summary, flush=True)
            return campaign.summary


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="random cuts and kills between operator and agent")
    parser.add_argument("--seeds", type=int, default=100, help="how many rounds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--no-kills", action="store_true", help="cuts only")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    with tempfile.TemporaryDirectory(prefix="sky-cuts-") as folder:
        print(asyncio.run(run(Path(folder), seeds, kills=not options.no_kills, loud=True)))


if __name__ == "__main__":
    main()
