"""A program whose one call prints numbered lines for a while: `pool lines`."""

from __future__ import annotations

import sys
import time

import skyward as sky


@sky.function
def paced(lines: int) -> None:
    """Print in bursts, slowly enough that something can happen in between."""
    for number in range(lines):
        print(f"line {number}.")
        if number % 50 == 0:
            time.sleep(0.025)


if __name__ == "__main__":
    with sky.Compute(name=sys.argv[1], provider=sky.Local(), nodes=1) as pool:
        paced(int(sys.argv[2])) >> pool
