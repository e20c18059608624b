"""A file that is in the store comes back into the folder where it is used, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from typing import TYPE_CHECKING

from skyward_operator.gateway.blobs import replace_durably
from skyward_operator.gateway.incoming import Incoming, Mismatch, WrongLength
from skyward_operator.gateway.stores.contract import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from skyward_operator.gateway.stores.contract import Blob, Store
    from skyward_operator.tasks.work import Blob as Package


async def recall(store: Store, blob: Blob, path: Path) -> bool:
    """Bring a kept file to `path`; False where none is kept. Raises StoreError, and OSError of the disk."""
    size = await store.size(blob)
    if size is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    file = part.open("xb")
    try:
        async for piece in store.read(blob):
            await asyncio.to_thread(file.write, piece)
        if file.tell() != size:
            raise StoreError(f"{file.tell()} of the {size} bytes of {blob} came")
        await asyncio.to_thread(_finish, file, part, path)
    except FileNotFoundError:
        return False
    finally:
        file.close()
        part.unlink(missing_ok=True)
    return True


async def recall_payload(
    store: Store, blob: Blob, path: Path, package: Package, progressed: Callable[[], object]
) -> bool:
    """The same for a payload, all of which the digest of its package vouches for: that is checked."""
    if await store.size(blob) is None:
        return False
    # Beside the place where a client may be sending it at the same time.
    place = path.with_name(f"{path.name}.recalled")
    incoming = Incoming(place, package.size, package.digest, sys.maxsize)
    try:
        await asyncio.to_thread(incoming.begin, 0)
        async for piece in store.read(blob):
            await asyncio.to_thread(incoming.append, [piece])
            progressed()
        await asyncio.to_thread(incoming.finish)
        await asyncio.to_thread(replace_durably, place, path)
    except FileNotFoundError:
        return False
    except (Mismatch, WrongLength) as error:
        raise StoreError(f"{blob} is damaged: {error}") from error
    finally:
        await asyncio.to_thread(incoming.drop)
    return True


def _finish(file: BinaryIO, part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    replace_durably(part, path)
