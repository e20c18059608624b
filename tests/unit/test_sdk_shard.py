"""`shard`: every row on exactly one node, of the same type, for every size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import skyward as sky
from skyward.runtime import call

ROWS = st.lists(st.integers(), max_size=60)
NODES = st.integers(min_value=1, max_value=9)


def _shards(data: Any, nodes: int, **options: Any) -> list[Any]:
    return [sky.shard(data, node=node, total_nodes=nodes, **options) for node in range(nodes)]


@given(rows=ROWS, nodes=NODES, shuffle=st.booleans(), seed=st.integers(0, 1000))
def test_every_row_lands_on_exactly_one_node(rows: list[int], nodes: int, shuffle: bool, seed: int) -> None:
    marked = list(enumerate(rows))
    shards = _shards(marked, nodes, shuffle=shuffle, seed=seed)
    assert sorted(row for shard in shards for row in shard) == marked
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(rows=ROWS, nodes=NODES, shuffle=st.booleans())
def test_drop_last_gives_equal_disjoint_shards(rows: list[int], nodes: int, shuffle: bool) -> None:
    marked = list(enumerate(rows))
    shards = _shards(marked, nodes, shuffle=shuffle, drop_last=True)
    assert {len(shard) for shard in shards} == {len(rows) // nodes}
    taken = [row for shard in shards for row in shard]
    assert len(set(taken)) == len(taken) == len(rows) // nodes * nodes


@given(rows=ROWS, nodes=NODES, seed=st.integers(0, 50), shuffle=st.booleans(), drop_last=st.booleans())
def test_arrays_of_every_type_share_their_indices(
    rows: list[int], nodes: int, seed: int, shuffle: bool, drop_last: bool
) -> None:
    array = np.arange(len(rows) * 2).reshape(len(rows), 2)
    for node in range(nodes):
        as_list, as_tuple, as_array, as_range = sky.shard(
            rows, tuple(rows), array, range(len(rows)),
            shuffle=shuffle, seed=seed, drop_last=drop_last, node=node, total_nodes=nodes,
        )  # fmt: skip
        assert isinstance(as_list, list)
        assert isinstance(as_tuple, tuple)
        assert isinstance(as_array, np.ndarray)
        assert as_list == list(as_tuple) == [rows[i] for i in as_range]
        assert as_array[:, 0].tolist() == [2 * i for i in as_range]


class Rows(Sequence[int]):
    """A sequence that cannot be sliced."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            raise TypeError("no slices")
        return index * 10


class Tensor:
    """Looks like a tensor: a shape, and indexing by slices and lists of positions."""

    def __init__(self, values: list[int]) -> None:
        self.values = values
        self.shape = (len(values),)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice | list[int]) -> Tensor:
        return Tensor(self.values[index] if isinstance(index, slice) else [self.values[i] for i in index])


class Dataset:
    """Looks like a Hugging Face dataset."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, positions: Sequence[int]) -> Dataset:
        return Dataset([self.rows[i] for i in positions])


@pytest.mark.parametrize("shuffle", [False, True])
def test_other_sequences_keep_their_type_where_they_can(shuffle: bool) -> None:
    take: dict[str, Any] = {"node": 1, "total_nodes": 3, "shuffle": shuffle}
    assert isinstance(sky.shard("abcdefg", **take), str)
    assert isinstance(sky.shard(b"abcdefg", **take), bytes)
    assert isinstance(sky.shard(Tensor([1, 2, 3, 4]), **take), Tensor)
    assert isinstance(sky.shard(Dataset([1, 2, 3, 4]), **take), Dataset)
    assert len(list(sky.shard(Rows(7), **take))) == 2


def test_a_strided_array_is_a_view() -> None:
    array = np.zeros(10)
    assert np.shares_memory(sky.shard(array, node=0, total_nodes=2), array)


def test_the_place_comes_from_the_running_call() -> None:
    with call({"node": 1, "total_nodes": 2, "rank": 5}):
        assert sky.shard([0, 1, 2, 3]) == [1, 3]
        assert sky.shard([0, 1, 2, 3], node=0) == [0, 2]


def test_what_cannot_be_sharded_says_why() -> None:
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        sky.shard([1, 2], [1, 2, 3], node=0, total_nodes=2)
    with pytest.raises(ValueError, match="node 2 of 2"):
        sky.shard([1], node=2, total_nodes=2)
    with pytest.raises(ValueError, match="at least one"):
        sky.shard(node=0, total_nodes=1)
    with pytest.raises(RuntimeError, match="outside a running call"):
        sky.shard([1, 2])
