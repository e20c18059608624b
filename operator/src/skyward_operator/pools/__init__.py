"""Pools: how many nodes there should be, and what the pool says of itself.

workload      what is asked of those who run calls
observation   what is known of a pool
scale         how many nodes it should have; pure
places        which nodes go, and which ranks get one; pure
decide        what to do about it; pure
status        what it says of itself; pure
act           doing it
reconcile     the loop over pools
"""

from skyward_operator.pools.reconcile import Pools, build

__all__ = ["Pools", "build"]
