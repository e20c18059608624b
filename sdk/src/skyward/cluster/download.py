"""A large result comes in: to a file without a name, on from where it was cut, checked, and then mapped.

What is unpickled from the mapping is used in place, so a result is in this process once, or less than that:
pages that nobody has written to belong to the file.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from mmap import ACCESS_COPY, mmap
from typing import BinaryIO

import httpx

from skyward.cluster.route import GatewayRefused
from skyward.errors import ControlPlaneError, GatewayError
from skyward.wire.digest import BytesLike
from skyward.wire.errors import PackageError
from skyward.wire.passing import PassingDigest

PATIENCE_SECONDS = 120.0
"""How long a gateway that sends nothing is asked again."""
_PAUSE_SECONDS = 0.25

type Begin = Callable[[int], AbstractContextManager[httpx.Response]]
"""Asks for the bytes from this one on."""


def download(
    task: str,
    size: int,
    digest: str,
    begin: Begin,
    progress: Callable[[int, int], None] = lambda received, size: None,
) -> BytesLike:
    """The outcomes of `task`: `size` bytes with this digest, which may be written to. `progress` is told how
    many have come.

    A connection that breaks is opened again until nothing has come for `PATIENCE_SECONDS`. Raises
    GatewayError, also where the bytes are not what they should be.
    """
    try:
        with tempfile.TemporaryFile(prefix="skyward-") as file:
            found = _receive(task, size, file, begin, progress)
            if found != digest:
                raise _damaged(task, f"its digest is {found} and its task's status says {digest}")
            return memoryview(mmap(file.fileno(), size, access=ACCESS_COPY)) if size else b""
    except OSError as error:
        raise GatewayError(
            f"the result of task {task} has {size:,} bytes and cannot be stored here: {error}",
            task=task,
            remedy="free space in the folder for temporary files, or set TMPDIR to one with more; the result "
            "is kept while the task exists",
        ) from error


def _receive(task: str, size: int, file: BinaryIO, begin: Begin, progress: Callable[[int, int], None]) -> str:
    """Write all of it to the file. Returns its digest."""
    received, deadline, passing = 0, time.monotonic() + PATIENCE_SECONDS, PassingDigest()
    while received < size:
        before = received
        try:
            with begin(received) as response:
                if response.status_code != httpx.codes.PARTIAL_CONTENT and received:
                    received, passing = 0, PassingDigest()
                file.seek(received)
                for piece in response.iter_raw():
                    received += file.write(piece)
                    if received > size:
                        break
                    passing.feed(piece)
                    progress(received, size)
            if received < size:
                raise GatewayError(f"the connection ended after {received:,} of {size:,} bytes")
        except PackageError as error:
            raise _damaged(task, str(error)) from error
        except ControlPlaneError as error:
            if received > before:
                deadline = time.monotonic() + PATIENCE_SECONDS
            if isinstance(error, GatewayRefused) or time.monotonic() > deadline:
                raise _not_fetched(task, error) from error
            time.sleep(_PAUSE_SECONDS)
    file.flush()
    if received > size:
        raise _damaged(task, f"it is larger than the {size:,} bytes of its task's status")
    try:
        return passing.hexdigest()
    except PackageError as error:
        raise _damaged(task, str(error)) from error


def _damaged(task: str, how: str) -> GatewayError:
    return GatewayError(
        f"the result of task {task} is damaged: {how}", task=task, remedy="send the call again"
    )


def _not_fetched(task: str, error: ControlPlaneError) -> GatewayError:
    return GatewayError(
        f"the result of task {task} could not be fetched: {error.message}",
        task=task,
        remedy="it is kept while the task exists: see whether the operator runs (`skyward local status`, or "
        "kubectl -n skyward-system get pods), then try again or send the call again",
    )
