"""Files that NumPy has mapped go as what is in them, from where they lie.

NumPy writes a subclass of its arrays into the pickle itself, so a mapped file of several GB would be read
into memory, and more than once. For whoever gets it, it is an array like any other, and may be written to.
"""

import pickle
import sys
from typing import Any, Literal


def reduce_mapped(obj: Any) -> Any:
    """A `numpy.memmap` as an array whose buffer it is; NotImplemented for everything else."""
    numpy = sys.modules.get("numpy")  # never imported for its own sake
    if numpy is None or type(obj) is not getattr(numpy, "memmap", None):
        return NotImplemented
    if not (obj.flags.c_contiguous or obj.flags.f_contiguous):
        return numpy.array(obj).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    order = "C" if obj.flags.c_contiguous else "F"
    # the buffer of the object itself: calls that share it are known by it, and it is read once
    return _array, (pickle.PickleBuffer(obj), obj.dtype, obj.shape, order)


def _array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> Any:
    import numpy

    return numpy.ndarray(shape, dtype, _writable(memoryview(buffer).cast("B"), numpy), order=order)


def _writable(view: memoryview, numpy: Any) -> memoryview:
    """The same bytes: they come as read-only where the file was mapped so, what they lie in is ours."""
    whole = memoryview(view.obj)
    if whole.readonly or not view.nbytes:
        return memoryview(bytearray(view))
    whole = whole.cast("B")
    begin = _address(view, numpy) - _address(whole, numpy)
    return whole[begin : begin + view.nbytes]


def _address(view: memoryview, numpy: Any) -> int:
    address: int = numpy.frombuffer(view, numpy.uint8).ctypes.data
    return address
