"""What a call returned, in bytes: small in the RESULT frame itself, large in a file of the spool."""

import os
import shutil
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from skyward.wire.digest import BytesLike
from skyward.wire.frames import MAX_BODY


class ResultTooLarge(Exception):
    """The call returned more bytes than the operator takes. None of them was written or sent."""


class ResultNotStored(Exception):
    """The node's disk did not take the result: the call ran, and what it returned is lost."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The bytes of a result: `body`, or those of `file`, which have the `digest`."""

    size: int = 0
    body: BytesLike = b""
    file: Path | None = None
    digest: str = ""


def keep(parts: list[BytesLike], spool: Path, largest: int | None) -> Returned:
    """Make these bytes ready to be sent, in a file in `spool` where they are many.

    Raises `ResultTooLarge` for more than `largest` bytes (None: no limit), and `ResultNotStored`.
    """
    size = sum(memoryview(part).nbytes for part in parts)
    if largest is not None and size > largest:
        raise ResultTooLarge(
            f"the result has {size:,} bytes (pickled) and the operator takes at most {largest:,}"
        )
    if size <= MAX_BODY:
        return Returned(size, b"".join(parts))
    path = spool / f"{os.getpid()}-{time.monotonic_ns()}.result"
    try:
        return Returned(size, file=path, digest=_write(path, parts))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ResultNotStored(
            f"the call ended, and its result of {size:,} bytes cannot be stored on the node: "
            f"{error.strerror or error}{_free(spool)}"
        ) from None


def _write(path: Path, parts: list[BytesLike]) -> str:
    hasher = sha256()
    with path.open("wb", buffering=0) as file:
        for part in parts:
            view = memoryview(part).cast("B")
            hasher.update(view)
            while view.nbytes:
                view = view[file.write(view) :]
    return hasher.hexdigest()


def _free(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free:,} bytes are free there, in {folder})"
    except OSError:
        return ""
