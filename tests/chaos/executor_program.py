"""What a user runs while parts are killed: an executor whose calls leave a line each in a ledger.

    executor_program.py LEDGER POOL CALLS SECONDS CUTS

The connection to the gateway is cut so many times while the calls run. The last line of the output is what
came back, as JSON.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import skyward as sky
from skyward.cluster.channel import Channel

LEDGER, POOL = Path(sys.argv[1]), sys.argv[2]
CALLS, SECONDS, CUTS = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])


def square(index: int) -> int:
    """Leave a line, take a moment."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"{index} {time.time():.3f} {os.getpid()}\n")
    time.sleep(SECONDS)
    return index * index


@sky.function
def rank() -> int:
    """The place in the broadcast."""
    return sky.instance_info().node


def cut(channel: Channel) -> None:
    """Break the connection, each time once it is there again."""
    for number in range(1, CUTS + 1):
        while channel.connections < number:
            time.sleep(0.01)
        time.sleep(0.2)
        channel.cut()


if __name__ == "__main__":
    with sky.Compute(
        provider=sky.Local(), nodes=2, name=POOL, options=sky.Options(shutdown_timeout=60)
    ) as pool:
        ranks = rank() @ pool
        with sky.Executor(pool, retry=sky.Retry(on_exception=2)) as executor:
            threading.Thread(target=cut, args=(executor.connection,), daemon=True).start()
            futures = [executor.submit(square, index) for index in range(CALLS)]
            squares = [future.result() for future in futures]
            connections = executor.connection.connections
    assert connections > CUTS, f"{connections} connections for {CUTS} cuts"
    print(json.dumps({"squares": squares, "ranks": ranks}))
