"""`skyward hello`: the shortest way from nothing to a result; no account, no cluster, no cost."""

import operator

import skyward as sky


def hello() -> None:
    """Make a machine on this computer, call a function on it, and clean up."""
    add = sky.function(operator.add)
    with sky.Compute(name=None, provider=sky.Local()) as pool:
        result = add(2, 3) >> pool
        print(f"✔ a node of this computer called add(2, 3) → {result}")
    print("Next:  examples/digits.py is a real job; `skyward pools` shows what runs")
