"""What a user runs while parts are killed: a generator that is fed by one, and leaves a line for each item.

    items_program.py LEDGER POOL CALLS SECONDS CUTS WAY

The connection to the gateway is cut so many times meanwhile. The last line of the output is what came
back, as JSON; `error` is what was raised instead of the rest.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import skyward as sky
from skyward import open_task
from skyward.cluster.channel import Channel

LEDGER, POOL = Path(sys.argv[1]), sys.argv[2]
CALLS, SECONDS, CUTS = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
given: list[int] = []
channels: list[Channel] = []


@sky.function
def squares(indexes: Iterator[int]) -> Iterator[int]:
    """Leave a line, take a moment, yield: for each index."""
    for index in indexes:
        with LEDGER.open("a") as ledger:
            ledger.write(f"{index} {time.time():.3f} {os.getpid()}\n")
        time.sleep(SECONDS)
        yield index * index


@sky.function
def rank() -> int:
    """The place in the broadcast."""
    return sky.instance_info().node


class Kept(Channel):
    """A channel that this program can cut."""

    def start(self) -> None:
        """Keep it."""
        channels.append(self)
        super().start()


def indexes() -> Iterator[int]:
    """What the generator is fed with."""
    for index in range(CALLS):
        given.append(index)
        yield index


def cut(channel: Channel) -> None:
    """Break the connection, each time once it is there again."""
    for number in range(1, CUTS + 1):
        while channel.connections < number:
            time.sleep(0.01)
        time.sleep(0.2)
        channel.cut()


if __name__ == "__main__":
    setattr(open_task, "Channel", Kept)  # noqa: B010 - so that it can be cut
    found: list[int] = []
    problem = ""
    with sky.Compute(
        provider=sky.Local(), nodes=2, name=POOL, options=sky.Options(shutdown_timeout=60)
    ) as pool:
        ranks = rank() @ pool
        items = squares(indexes()) >> pool
        threading.Thread(target=cut, args=(channels[0],), daemon=True).start()
        try:
            found += items  # keeps what came before an error
        except sky.SkywardError as error:
            problem = f"{type(error).__name__}: {error}"
    assert given == list(range(len(given))), "an item was asked for twice"
    assert channels[0].connections > CUTS, f"{channels[0].connections} connections for {CUTS} cuts"
    print(json.dumps({"squares": found, "ranks": ranks, "error": problem}))
