"""LZ4 where it pays: a sample has to shrink, and the memory that holds both has to stay small."""

from collections.abc import Sequence

import lz4.frame

from skyward.wire.digest import BytesLike

SMALLEST = 16 * 1024
_SAMPLE = 64 * 1024
_PIECE = 1024 * 1024
_SHRINKS = 0.8
_FREELY = 16 * 1024 * 1024
"""Up to so many bytes, what shrinks by a fifth is kept compressed beside the original."""
_MUCH = 0.15
"""More than that is kept only where it shrinks to so small a share: whoever sends it holds both."""


def compressed(pieces: Sequence[BytesLike], size: int) -> list[BytesLike] | None:
    """The pieces (`size` bytes in all) as one LZ4 frame, cut anywhere; None where that does not pay."""
    if size < SMALLEST or not _sample_shrinks(pieces):
        return None
    most = int(size * (_SHRINKS if size <= _FREELY else _MUCH))
    packer = lz4.frame.LZ4FrameCompressor()
    packed: list[BytesLike] = [packer.begin(source_size=size)]
    taken = 0
    for piece in map(flat, pieces):
        for begin in range(0, piece.nbytes, _PIECE):
            packed.append(packer.compress(piece[begin : begin + _PIECE]))
            taken += len(packed[-1])
            if taken > most:
                return None
    packed.append(packer.flush())
    return packed


def flat(piece: BytesLike) -> memoryview:
    """The bytes of whatever it is."""
    return memoryview(piece).cast("B")


def size_of(piece: BytesLike) -> int:
    """How many bytes it has."""
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)


def _sample_shrinks(pieces: Sequence[BytesLike]) -> bool:
    longest = flat(max(pieces, key=size_of))
    start = max(0, (longest.nbytes - _SAMPLE) // 2)
    sample = longest[start : start + _SAMPLE]
    return len(lz4.frame.compress(sample)) <= _SHRINKS * sample.nbytes
