"""`sky.Executor`: many small calls over one standing connection, as with any `concurrent.futures` executor.

    python examples/executor.py

Estimates pi on two local nodes: as results come, then in order, then from asyncio.
"""

import asyncio
import random
from concurrent.futures import as_completed

import skyward as sky

POINTS = 20_000


def inside(seed: int) -> int:
    """How many of `POINTS` random points of the unit square lie in the circle."""
    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(POINTS))


async def refine(executor: sky.Executor, seeds: range) -> int:
    """The same with asyncio: futures can be awaited."""
    return sum(await asyncio.gather(*(executor.submit(inside, seed) for seed in seeds)))


def main() -> None:
    """Three ways to use one executor."""
    with sky.Compute(provider=sky.Local(), nodes=2) as pool, sky.Executor(pool) as executor:
        hits = 0
        futures = [executor.submit(inside, seed) for seed in range(40)]
        for done, future in enumerate(as_completed(futures), 1):
            hits += future.result()
            if done % 10 == 0:
                print(f"{done:3} calls: pi is about {4 * hits / (done * POINTS):.4f}")
        hits += sum(executor.map(inside, range(40, 80), buffersize=16))
        hits += asyncio.run(refine(executor, range(80, 120)))
        print(f"120 calls: pi is about {4 * hits / (120 * POINTS):.4f}")


if __name__ == "__main__":
    main()
