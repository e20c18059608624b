"""Stop work that is not needed any more: the rest of a search once something is found, a call, a slow one.

    python examples/cancel.py

What is cancelled really stops on its node, which is free for the next call at once.
"""

import time

import skyward as sky

NUMBER = 1_000_003 * 999_983
WIDTH = 250_000


def divisor(start: int) -> int | None:
    """A divisor of the number in one range of candidates, if there is one. Runs on one node."""
    return next((each for each in range(start, start + WIDTH) if NUMBER % each == 0), None)


@sky.function
def wait(seconds: float) -> str:
    """Take so long. Runs on one node."""
    time.sleep(seconds)
    return f"waited for {seconds} s"


def main() -> None:
    """Cancel in three ways, and see that the nodes are free."""
    with sky.Compute(provider=sky.Local(), nodes=2) as pool:
        # Leaving the `with` of a stream cancels the calls that have not ended: nearly all of ten thousand.
        with pool.map(divisor, range(2, 10_000 * WIDTH, WIDTH), stream=True, ordered=False) as found:
            print(f"{NUMBER:,} can be divided by {next(filter(None, found)):,}")

        # A future can be cancelled.
        future = wait(3600) > pool
        print(f"cancelled: {future.cancel()}")

        # A call that takes longer than it may is stopped.
        try:
            wait(3600).with_timeout(1) >> pool
        except sky.TaskTimeout as error:
            print(error.message)

        print(wait(0) >> pool)


if __name__ == "__main__":
    main()
