"""Take items from a function while it runs: a search that reports whenever it has found something better.

    python examples/stream_out.py

The function is an ordinary generator. It runs no further ahead of its reader than a small window, and it ends
where it yields as soon as nobody reads on.
"""

import random
from collections.abc import Iterator

import skyward as sky


@sky.function
def improve(seed: int) -> Iterator[tuple[int, float]]:
    """Look for the minimum of a function, for ever. Runs on one node."""
    numbers = random.Random(seed)
    best, tries = float("inf"), 0
    while True:
        tries += 1
        x, y = numbers.uniform(-2, 2), numbers.uniform(-2, 2)
        value = (1 - x) ** 2 + 100 * (y - x * x) ** 2
        if value < best:
            best = value
            yield tries, best


def main() -> None:
    """Stop as soon as it is good enough."""
    with sky.Compute(provider=sky.Local(), nodes=1) as pool, improve(7) >> pool as found:
        for tries, value in found:
            print(f"{value:.6f} after {tries:,} tries")
            if value < 0.001:
                break


if __name__ == "__main__":
    main()
