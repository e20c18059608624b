"""Use machines only while there is something to do: none at first, as many as a queue needs, none in the end.

    python examples/elastic.py

`nodes=(0, 3)` is a floor and a ceiling. The console says each time why the pool grows or shrinks.
"""

import time

import skyward as sky


@sky.function
def work(number: int) -> int:
    """Something that takes a while. Runs on one node."""
    time.sleep(3)
    return number * number


def main() -> None:
    """Count the machines before, during and after a map."""
    options = sky.Options(autoscale_idle_timeout=2)  # seconds; a minute unless you say otherwise
    with sky.Compute(provider=sky.Local(), nodes=(0, 3), options=options) as pool:
        print(f"before: {pool.current_nodes()} nodes")
        most, squares = 0, []
        for square in pool.map(work, range(9), stream=True):
            most = max(most, pool.current_nodes())
            squares.append(square)
        print(f"at most {most} nodes: {squares}")
        while pool.current_nodes():
            time.sleep(0.1)
        print(f"after: {pool.current_nodes()} nodes")


if __name__ == "__main__":
    main()
