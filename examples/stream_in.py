"""Give a function items while it runs: records of the caller, made one by one, are summed up on a node.

    python examples/stream_in.py

An argument for a parameter that is annotated as an iterator is not sent with the call: the function pulls it
item by item. What is made here is never in memory as a whole, on either side.
"""

from collections.abc import Iterator

import skyward as sky

READINGS = 20_000


def readings() -> Iterator[tuple[str, float]]:
    """The readings of some sensors, as they come. Runs here."""
    for number in range(READINGS):
        yield f"sensor {number % 3}", number % 97 / 10 + number % 3


@sky.function
def mean_of_each(records: Iterator[tuple[str, float]]) -> dict[str, float]:
    """The mean reading of each sensor. Runs on one node."""
    sums: dict[str, tuple[float, int]] = {}
    for name, value in records:
        total, count = sums.get(name, (0.0, 0))
        sums[name] = total + value, count + 1
    return {name: total / count for name, (total, count) in sums.items()}


def main() -> None:
    """Send what is only being made."""
    with sky.Compute(provider=sky.Local(), nodes=1) as pool:
        for name, mean in (mean_of_each(readings()) >> pool).items():
            print(f"{name}: {mean:.2f}")


if __name__ == "__main__":
    main()
