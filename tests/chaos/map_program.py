"""What a user runs while parts are killed: a map whose calls leave a line each in a ledger, then a broadcast.

    map_program.py LEDGER POOL CALLS SECONDS PADDING WAY

Each argument and each result carries so many bytes of padding: with many, both travel through the gateway.
WAY is how the results of the map are taken: `whole`, once it has ended, or `stream`, as they come, each with
a line of output. The last line of the output is what came back, as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import skyward as sky

LEDGER, POOL = Path(sys.argv[1]), sys.argv[2]
CALLS, SECONDS, PADDING = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
WAY = sys.argv[6]


@sky.function
def square(index: int, padding: bytes) -> tuple[int, bytes]:
    """Leave a line, take a moment, print."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"{index} {time.time():.3f} {os.getpid()}\n")
    time.sleep(SECONDS)
    print(f"printed by call {index}.")
    return index * index, padding[::-1]


@sky.function
def rank() -> int:
    """The place in the broadcast."""
    return sky.instance_info().node


def taken(calls: list[sky.PendingFunction[tuple[int, bytes]]], pool: sky.Pool) -> list[tuple[int, bytes]]:
    """The results of all calls, in the order in which they were handed out."""
    if WAY == "whole":
        return list(sky.gather(*calls) >> pool)
    results = []
    for result in sky.gather(*calls, stream=True) >> pool:
        results.append(result)
        print(f"received {len(results)} results.", flush=True)
    return results


if __name__ == "__main__":
    with sky.Compute(
        provider=sky.Local(), nodes=2, name=POOL, options=sky.Options(shutdown_timeout=60)
    ) as pool:
        paddings = [os.urandom(PADDING) for _ in range(CALLS)]
        calls = [square(index, paddings[index]).with_retry(on_exception=2) for index in range(CALLS)]
        results = taken(calls, pool)
        ranks = rank() @ pool
    assert [padding[::-1] for _, padding in results] == paddings
    print(json.dumps({"squares": [number for number, _ in results], "ranks": ranks}))
