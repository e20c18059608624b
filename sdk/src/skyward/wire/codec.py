"""Objects to bytes and back, for SDK and agent only. The operator must never import this module.

Small objects are a bare pickle (they begin with 0x80): pickle first, cloudpickle where that cannot do it.
Large buffers (NumPy arrays and whatever else speaks pickle protocol 5) leave the pickle and stand beside it,
so that they are copied once on the way out and not at all when a file is mapped on the way in:

    0x01 "SKY" | count u32 | (stored u64, raw u64, offset u64, compressed u8) of each part | parts at 64 bytes

Part 0 is the pickle. A part is lz4-compressed only where a sample of it shrinks: trained weights do not.
With `dumps_apart`, what is larger still stands apart altogether (`skyward.wire.apart`).

What the caller's own modules define (files that are neither the standard library's nor installed packages,
and `__main__`) goes by value, because the node does not have those files.
"""

import pickle
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import cloudpickle
import lz4.frame

from skyward.wire.apart import LARGE, MAGIC, Apart, join
from skyward.wire.blame import blame
from skyward.wire.compression import SMALLEST, compressed, size_of
from skyward.wire.digest import BytesLike
from skyward.wire.errors import Damaged, NotDeserializable, NotPicklable
from skyward.wire.mapped import reduce_mapped
from skyward.wire.modules import ModuleStates, reduce_module
from skyward.wire.origin import by_value, stays_here
from skyward.wire.parts import Part
from skyward.wire.scrolled import Scrolled

_MAGIC = b"\x01SKY"
_COUNT = struct.Struct("!4sI")
_PART = struct.Struct("!QQQB")
_ALIGNMENT = 64
_OUT_OF_BAND = SMALLEST
_LZ4_RATIO = 256
"""LZ4 cannot make more than 255 bytes of one."""
_SCROLLED_ABOVE = 16 * 1024 * 1024
_PROTOCOL = 5
_NO_FILES: Mapping[str, Path] = MappingProxyType({})

type _Pieces = list[BytesLike]
"""A pickle as it was written: a large `bytes` in it is a piece, and the object itself."""

_lock = threading.RLock()


def dumps(obj: Any) -> bytes:
    """`obj` as bytes. Raises `NotPicklable`, naming the part that cannot travel."""
    parts = dumps_parts(obj)
    return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


def dumps_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The arguments of a call. Raises `NotPicklable`, saying which argument it is."""
    try:
        return dumps((tuple(args), dict(kwargs)))
    except NotPicklable as error:
        named = [(f"argument {position}", value) for position, value in enumerate(args, 1)]
        named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
        for name, value in named:
            if not _can_pickle(value):
                reason = error.__cause__
                raise NotPicklable(
                    f"{blame(value, _can_pickle, name)} cannot be pickled: {reason}"
                ) from reason
        raise


def dumps_parts(obj: Any) -> list[BytesLike]:
    """`dumps` without the last copy: pieces to write one after the other."""
    buffers: list[pickle.PickleBuffer] = []
    return _together(_pickled(obj, buffers), buffers)


def dumps_apart(obj: Any, apart: Apart) -> tuple[bytes, list[Part]]:
    """`dumps`, but what is large stands apart and is not copied."""
    buffers: list[pickle.PickleBuffer] = []
    return _split(_pickled(obj, buffers), buffers, apart)


def dumps_function(fn: Callable[..., Any]) -> bytes:
    """A function with everything it refers to. Raises `NotPicklable`, naming the variable at fault."""
    buffers: list[pickle.PickleBuffer] = []
    return b"".join(_together(_pickled_function(fn, buffers), buffers))


def dumps_function_apart(fn: Callable[..., Any], apart: Apart) -> tuple[bytes, list[Part]]:
    """`dumps_function`, but what is large stands apart and is not copied."""
    buffers: list[pickle.PickleBuffer] = []
    return _split(_pickled_function(fn, buffers), buffers, apart)


def loads(data: BytesLike, files: Mapping[str, Path] = _NO_FILES) -> Any:
    """The object again. Buffers of writable `data` (a bytearray, a private mapping) are used in place, so
    keep nothing else in it; those of read-only bytes are copied, because the caller may write to an array.
    `files` has what stands apart, by digest.

    Raises `NotDeserializable`, with the name of the missing module where that is the reason.
    """
    view = memoryview(data).cast("B")
    try:
        if view[:4] == MAGIC:
            stream, buffers = join(view, files)
            with closing(stream):
                return pickle.Unpickler(stream, buffers=buffers).load()  # noqa: S301
        if view[:4] != _MAGIC:
            return pickle.loads(view)  # noqa: S301 - what SDK and agent exchange is code by design
        whole, *raw = _open(view)
        if whole.nbytes > _SCROLLED_ABOVE:
            return pickle.Unpickler(Scrolled(whole), buffers=raw).load()  # noqa: S301
        return pickle.loads(whole, buffers=raw)  # noqa: S301
    except Damaged:
        raise
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise NotDeserializable(f"{error}", missing) from error
    except Exception as error:
        raise NotDeserializable(f"{type(error).__name__}: {error}") from error


def _pickled(obj: Any, buffers: list[pickle.PickleBuffer]) -> _Pieces:
    try:
        return _pickle(obj, buffers)
    except Exception as error:
        raise NotPicklable(f"{blame(obj, _can_pickle)} cannot be pickled: {error}") from error


def _pickled_function(fn: Callable[..., Any], buffers: list[pickle.PickleBuffer]) -> _Pieces:
    try:
        return _cloudpickle(fn, buffers)
    except Exception as error:
        name = getattr(fn, "__qualname__", repr(fn))
        raise NotPicklable(f"{blame(fn, _can_pickle, name)} cannot be pickled: {error}") from error


def _together(stream: _Pieces, buffers: Sequence[pickle.PickleBuffer]) -> list[BytesLike]:
    if not buffers and sum(map(size_of, stream)) < _OUT_OF_BAND:
        return stream
    return _envelope(stream, [buffer.raw() for buffer in buffers])


def _split(stream: _Pieces, buffers: Sequence[pickle.PickleBuffer], apart: Apart) -> tuple[bytes, list[Part]]:
    raw = [buffer.raw() for buffer in buffers]
    if sum(map(size_of, stream)) + sum(map(size_of, raw)) < LARGE:
        return b"".join(_together(stream, buffers)), []
    return apart.envelope(stream, raw)


def _pickle(obj: Any, buffers: list[pickle.PickleBuffer]) -> _Pieces:
    pieces: _Pieces = []
    try:
        _Plain(_into(pieces), _PROTOCOL, buffer_callback=_collect(buffers)).dump(obj)
    except Exception:  # any object may raise anything from its own __reduce__
        buffers.clear()
        return _cloudpickle(obj, buffers)
    return pieces


def _cloudpickle(obj: Any, buffers: list[pickle.PickleBuffer]) -> _Pieces:
    return _by_value(obj, buffers, ModuleStates())


def _by_value(obj: Any, buffers: list[pickle.PickleBuffer], states: ModuleStates) -> _Pieces:
    pieces: _Pieces = []
    with _lock:
        pickler = _ByValue(_into(pieces), states, _PROTOCOL, buffer_callback=_collect(buffers))
        try:
            pickler.dump(obj)
        finally:
            pickler.unregister()
    return pieces


def _into(pieces: _Pieces) -> Any:
    """A file that keeps what is written to it: the pickler hands large `bytes` over as they are."""
    return SimpleNamespace(write=pieces.append)


def _collect(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    """Take contiguous buffers that are worth it out of the pickle; leave the others in."""

    def take(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(buffer)
        return False

    return take


class _Plain(pickle.Pickler):
    """The fast path. It gives up (so that cloudpickle takes over) at what the other side cannot import."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType):
            if by_value(obj.__module__):
                raise pickle.PicklingError(f"{obj!r} goes by value")
            _refuse_ours(obj)
        return reduce_mapped(obj)


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, told about the caller's own modules as it meets them, and only while it runs."""

    def __init__(self, out: Any, states: ModuleStates, *args: Any, **kwargs: Any) -> None:
        super().__init__(out, *args, **kwargs)
        self._states = states
        self._registered: list[ModuleType] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            if sys.modules.get(obj.__name__) is obj and by_value(obj.__name__):
                return reduce_module(obj, self._states.of(obj, self._can_travel))
        elif isinstance(obj, type | FunctionType):
            _refuse_ours(obj)
            self._register(obj.__module__)
        elif (mapped := reduce_mapped(obj)) is not NotImplemented:
            return mapped
        return super().reducer_override(obj)

    def _can_travel(self, value: Any) -> bool:
        try:
            _by_value(value, [], self._states)
        except Exception:
            return False
        return True

    def _register(self, name: str | None) -> None:
        if name is None or name == "__main__" or not by_value(name):
            return
        registry = cloudpickle.list_registry_pickle_by_value()
        module = sys.modules.get(name)
        if module is not None and name not in registry:
            cloudpickle.register_pickle_by_value(module)
            self._registered.append(module)

    def unregister(self) -> None:
        """Leave cloudpickle's process-wide registry as it was: others in this process use it too."""
        for module in self._registered:
            cloudpickle.unregister_pickle_by_value(module)


def _refuse_ours(obj: type | FunctionType) -> None:
    if stays_here(obj.__module__):
        raise pickle.PicklingError(f"{obj.__module__}.{obj.__qualname__} exists on the client only")


def _can_pickle(obj: Any) -> bool:
    try:
        _pickle(obj, [])
    except Exception:
        return False
    return True


def _envelope(stream: _Pieces, buffers: Sequence[memoryview]) -> list[BytesLike]:
    parts: list[Sequence[BytesLike]] = [stream, *([buffer] for buffer in buffers)]
    offset = _COUNT.size + len(parts) * _PART.size
    table = bytearray(_COUNT.pack(_MAGIC, len(parts)))
    pieces: list[BytesLike] = []
    for part in parts:
        raw = sum(map(size_of, part))
        packed = compressed(part, raw)
        stored = part if packed is None else packed
        size = raw if packed is None else sum(map(size_of, packed))
        padding = -offset % _ALIGNMENT
        offset += padding
        table += _PART.pack(size, raw, offset, packed is not None)
        pieces += (bytes(padding), *stored)
        offset += size
    return [bytes(table), *pieces]


def _open(view: memoryview) -> list[memoryview]:
    _, count = _COUNT.unpack_from(view)
    return [_part(view, *_PART.unpack_from(view, _COUNT.size + i * _PART.size)) for i in range(count)]


def _part(view: memoryview, stored: int, raw: int, offset: int, compressed: int) -> memoryview:
    if offset + stored > view.nbytes:
        raise ValueError("the payload is cut off")
    part = view[offset : offset + stored]
    if compressed:
        return memoryview(_grow(part, raw))
    return memoryview(bytearray(part)) if part.readonly else part


def _grow(part: memoryview, raw: int) -> bytearray:
    """The `raw` bytes that a part was; no more memory than that is taken, whatever the part says."""
    if raw > _LZ4_RATIO * part.nbytes:
        raise ValueError("the payload is damaged")
    unpacker = lz4.frame.LZ4FrameDecompressor(return_bytearray=True)
    whole: bytearray = unpacker.decompress(part, max_length=raw)
    if len(whole) != raw or not unpacker.eof:
        raise ValueError("the payload is damaged")
    return whole
