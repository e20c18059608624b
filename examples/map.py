"""Estimate π with random points on several machines; the estimate gets better as results come in.

    python examples/map.py

A map is one task, however many items it has. With `stream=True` results come while others still run.
"""

import random

import skyward as sky

POINTS = 200_000


def hits(seed: int) -> int:
    """How many of so many random points in the unit square lie inside of the circle. Runs on one node."""
    draw = random.Random(seed)
    return sum(draw.random() ** 2 + draw.random() ** 2 <= 1.0 for _ in range(POINTS))


def main() -> None:
    """Sum up what comes, as it comes."""
    with sky.Compute(provider=sky.Local(), nodes=2) as pool:
        inside = 0
        for done, found in enumerate(pool.map(hits, range(20), stream=True, ordered=False), start=1):
            inside += found
            print(f"after {done * POINTS:>9,} points: π ≈ {4 * inside / (done * POINTS):.5f}")


if __name__ == "__main__":
    main()
