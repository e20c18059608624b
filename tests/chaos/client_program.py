"""What a user runs while the ways to the API server and to the gateway are cut.

    client_program.py LEDGER

Each line of the input is the seed of a round. A round is a mix of calls with small and large arguments and
results, maps, streams and an executor, all at once, made from the seed alone. Each call leaves a line in the
ledger. The program answers each round with one line that begins with `VERDICT`, as JSON: how many calls there
were, and what was wrong.
"""

import hashlib
import json
import os
import random
import sys
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

import skyward as sky
from skyward.cluster import api, channel, gateway, logs, route, upload, watch

LEDGER = sys.argv[1]
SIZES = (10, 10, 10_000, 300_000, 3_000_000)
SOON = 2.5
"""Seconds of silence after which a connection counts as dead."""

for module, name, seconds in (
    (api, "REQUEST_SECONDS", SOON),
    (channel, "SILENCE_SECONDS", SOON),
    (channel, "CONNECT_SECONDS", SOON),
    (gateway, "SILENCE_SECONDS", SOON),
    (upload, "_PAUSE_SECONDS", 0.1),
    (logs, "SILENCE_SECONDS", SOON),
    (route, "REQUEST_SECONDS", SOON),
    (route, "ANSWER_SECONDS", 2 * SOON),
):
    assert hasattr(module, name)
    setattr(module, name, seconds)
(watch.Watch.__init__.__kwdefaults__ or {})["silence"] = SOON


@sky.function
def work(ledger: str, name: str, argument: bytes, size: int) -> tuple[str, bytes]:
    """Leave a line, print, and give back what only this call with this argument gives."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)
    print(f"printed by {name}.")
    return hashlib.sha256(argument).hexdigest(), random.Random(name).randbytes(size)


def check(name: str, argument: bytes, size: int, result: tuple[str, bytes]) -> None:
    """The result is that of this call."""
    assert result[0] == hashlib.sha256(argument).hexdigest(), f"{name} got another argument"
    assert result[1] == random.Random(name).randbytes(size), f"the value of {name} is another one"


class Round:
    """The work of one seed."""

    def __init__(self, seed: int, pool: sky.Pool) -> None:
        self.dice = Random(seed)
        self.seed = seed
        self.pool = pool
        self.calls = 0

    def play(self) -> None:
        """Everything at once; raises what goes wrong first."""
        ways = self.dice.choices((self.singles, self.stream, self.whole, self.executor), k=3)
        with ThreadPoolExecutor(len(ways)) as threads:
            # each with dice of its own: what threads do first changes nothing
            dice = [Random(self.dice.random()) for _ in ways]
            running = [threads.submit(way, number, dice[number]) for number, way in enumerate(ways)]
            for each in running:
                each.result()

    def call(self, name: str, dice: Random, largest: int = 10**9) -> tuple[str, bytes, int]:
        """The arguments of one call."""
        self.calls += 1
        sizes = [size for size in SIZES if size <= largest]
        return name, dice.randbytes(dice.choice(sizes)), dice.choice(sizes)

    def singles(self, number: int, dice: Random) -> None:
        """Calls in the background."""
        calls = [self.call(f"{self.seed}-{number}-{index}", dice) for index in range(dice.randint(1, 6))]
        futures = [work(LEDGER, *call) > self.pool for call in calls]
        for call, future in zip(calls, futures, strict=True):
            check(*call, future.result(110))

    def whole(self, number: int, dice: Random) -> None:
        """A group whose results come together."""
        calls = [self.call(f"{self.seed}-{number}-{index}", dice, 300_000) for index in range(12)]
        results = sky.gather(*(work(LEDGER, *call) for call in calls)) >> self.pool
        for call, result in zip(calls, results, strict=True):
            check(*call, result)

    def stream(self, number: int, dice: Random) -> None:
        """A group whose results come one by one."""
        calls = [self.call(f"{self.seed}-{number}-{index}", dice, 300_000) for index in range(12)]
        results = sky.gather(*(work(LEDGER, *call) for call in calls), stream=True) >> self.pool
        for call, result in zip(calls, results, strict=True):
            check(*call, result)

    def executor(self, number: int, dice: Random) -> None:
        """Many small calls over one session."""
        with sky.Executor(self.pool) as executor:
            calls = [self.call(f"{self.seed}-{number}-{index}", dice, 300_000) for index in range(40)]
            futures: list[Future[tuple[str, bytes]]] = [
                executor.submit(work.fn, LEDGER, name, data, size) for name, data, size in calls
            ]
            for call, future in zip(calls, futures, strict=True):
                check(*call, future.result(110))


def main() -> None:
    """Rounds, until there are no more seeds."""
    with sky.Compute(
        provider=sky.Local(), nodes=2, name="cut", options=sky.Options(shutdown_timeout=60)
    ) as pool:
        work(LEDGER, "first", b"", 0) >> pool
        print("READY", flush=True)
        for line in sys.stdin:
            played = Round(int(line), pool)
            wrong, began = None, time.monotonic()
            try:
                played.play()
            except Exception:
                wrong = traceback.format_exc()
            taken = time.monotonic() - began
            print(
                "VERDICT", json.dumps({"calls": played.calls, "wrong": wrong, "seconds": taken}), flush=True
            )


if __name__ == "__main__":
    main()
