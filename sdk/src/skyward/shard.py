"""`shard`: this node's disjoint slice of data that every node was given.

Reads the frozen (index, size) of the broadcast, never a live list of peers: every row lands on exactly one
node even while nodes join or leave. This module travels to the VM: standard library only, arrays are
recognised by their shape.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, overload

from skyward.runtime import instance_info


@overload
def shard[D](
    data: D,
    /,
    *,
    shuffle: bool = ...,
    seed: int = ...,
    drop_last: bool = ...,
    node: int | None = ...,
    total_nodes: int | None = ...,
) -> D: ...
@overload
def shard[D, E](
    first: D,
    second: E,
    /,
    *,
    shuffle: bool = ...,
    seed: int = ...,
    drop_last: bool = ...,
    node: int | None = ...,
    total_nodes: int | None = ...,
) -> tuple[D, E]: ...
@overload
def shard(
    *data: Any,
    shuffle: bool = ...,
    seed: int = ...,
    drop_last: bool = ...,
    node: int | None = ...,
    total_nodes: int | None = ...,
) -> tuple[Any, ...]: ...
def shard(
    *data: Any,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    node: int | None = None,
    total_nodes: int | None = None,
) -> Any:
    """Return this node's slice of `data`, of the same type; several arrays share the same indices.

    Rows are dealt in turn (node i of n takes i, i+n, i+2n, …). `shuffle` permutes them first, with the same
    `seed` on every node. `drop_last` leaves the tail away so that every node gets the same number of rows.
    `node` and `total_nodes` default to the place of the call in its broadcast.
    Raises ValueError if the lengths differ or the place is impossible.
    """
    if not data:
        raise ValueError("shard() needs at least one list, tuple, array or sequence")
    index, size = _place(node, total_nodes)
    lengths = {len(part) for part in data}
    if len(lengths) > 1:
        raise ValueError(f"shard() needs data of one length, got lengths {[len(part) for part in data]}")
    positions = _positions(lengths.pop(), index, size, shuffle, seed, drop_last)
    shards = tuple(_take(part, positions) for part in data)
    return shards[0] if len(shards) == 1 else shards


def _place(node: int | None, total_nodes: int | None) -> tuple[int, int]:
    if node is None or total_nodes is None:
        info = instance_info()
        node = info.node if node is None else node
        total_nodes = info.total_nodes if total_nodes is None else total_nodes
    if total_nodes < 1 or not 0 <= node < total_nodes:
        raise ValueError(f"shard() was asked for node {node} of {total_nodes}; node counts from 0")
    return node, total_nodes


def _positions(
    length: int, index: int, size: int, shuffle: bool, seed: int, drop_last: bool
) -> range | list[int]:
    used = length // size * size if drop_last else length
    if not shuffle:
        return range(index, used, size)
    order = list(range(length))
    random.Random(seed).shuffle(order)  # noqa: S311 - a permutation that every node repeats, not a secret
    return order[index:used:size]


def _take(data: Any, positions: range | list[int]) -> Any:
    match data:
        case list():
            return [data[position] for position in positions]
        case str():
            return "".join(data[position] for position in positions)
        case bytes() | bytearray():
            return type(data)(data[position] for position in positions)
        case tuple():
            return tuple(data[position] for position in positions)
    if hasattr(data, "iloc"):  # pandas: rows by position keep their labels
        return data.iloc[_index(positions)]
    if hasattr(data, "shape"):  # numpy, torch, jax: a strided slice is a view, no copy is made
        return data[_index(positions)]
    if hasattr(data, "select"):  # a Hugging Face dataset stays one
        return data.select(positions)
    if isinstance(data, Sequence) and isinstance(positions, range):
        with suppress(TypeError, KeyError):  # a sequence without slices
            return data[positions.start : positions.stop : positions.step]
    return [data[position] for position in positions]


def _index(positions: range | list[int]) -> slice | list[int]:
    return (
        slice(positions.start, positions.stop, positions.step) if isinstance(positions, range) else positions
    )
