"""What a user runs while parts are killed: a map whose calls leave a line each in a ledger, then a broadcast.

    map_program.py LEDGER POOL [CALLS [SECONDS]]

The last line of the output is what came back, as JSON.
"""

import json
import sys
import time
from pathlib import Path

import skyward as sky

LEDGER, POOL = Path(sys.argv[1]), sys.argv[2]
CALLS = int(sys.argv[3]) if len(sys.argv) > 3 else 30
SECONDS = float(sys.argv[4]) if len(sys.argv) > 4 else 0.1


@sky.function
def square(index: int) -> int:
    """Leave a line, take a moment, print."""
    import os

    with LEDGER.open("a") as ledger:
        ledger.write(f"{index} {time.time():.3f} {os.getpid()}\n")
    time.sleep(SECONDS)
    print(f"printed by call {index}.")
    return index * index


@sky.function
def rank() -> int:
    """The place in the broadcast."""
    return sky.instance_info().node


if __name__ == "__main__":
    with sky.Compute(
        provider=sky.Local(), nodes=2, name=POOL, options=sky.Options(shutdown_timeout=60)
    ) as pool:
        calls = [square(index).with_retry(on_exception=2) for index in range(CALLS)]
        squares = list(sky.gather(*calls) >> pool)
        ranks = rank() @ pool
    print(json.dumps({"squares": squares, "ranks": ranks}))
