"""What functions print, on its way from the agent: compressed where that makes it smaller, as it mostly does.

Each byte is encrypted, decrypted and copied by three processes on the way, on which results wait as well.
"""

from collections.abc import Mapping
from typing import Any

import lz4.block

from skyward.wire.errors import FrameError

LARGEST = 1024 * 1024
"""No frame of output holds more; what claims to is damaged."""
_WORTH_IT = 1024
_FIELD = "plain"


def pack(data: bytes) -> tuple[dict[str, int], bytes]:
    """What to say of it in the header, and the bytes to send."""
    if len(data) >= _WORTH_IT:
        packed = lz4.block.compress(data, store_size=False)
        if len(packed) < len(data) - len(data) // 8:
            return {_FIELD: len(data)}, packed
    return {}, data


def unpack(header: Mapping[str, Any], body: bytes) -> bytes:
    """The bytes that were printed. Raises FrameError for what cannot be right, whatever it says of itself."""
    size = header.get(_FIELD)
    if size is None:
        return body
    if type(size) is not int or not 0 < size <= LARGEST:
        raise FrameError(f"output of {size!r} bytes is not sent")
    try:
        data: bytes = lz4.block.decompress(body, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise FrameError(f"output is damaged: {error}") from None
    if len(data) != size:
        raise FrameError(f"output of {len(data)} bytes is called {size}")
    return data
