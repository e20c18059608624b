"""Large payloads on the node, by digest: they arrive in pieces and are mapped by the workers that need them.

A blob becomes visible only when it is complete and its digest is right. One that cannot be kept is refused
once, and what still comes of it is dropped, until it begins anew. Blobs that no waiting or running
attempt needs are removed, longest unused first, once all together exceed a limit.

A blob that somebody wrote to, cut or removed since is not here any more: it is sent again. Each file carries
a time of its own making (`_stamp`), which only whoever writes to it changes; it holds until the machine
starts anew, because what a machine had not written out may be lost with it.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from skyward.wire.digest import BytesLike, is_digest

_KEEP_BYTES = 8 * 1024**3
_MAX_PARTIAL = 64


class BlobRefused(Exception):
    """A piece of a blob was not taken. The sender starts again at offset 0."""


@dataclass(slots=True)
class _Partial:
    file: IO[bytes]
    hasher: Any
    offset: int = 0


class Blobs:
    """The blobs of one node, in one folder. A thread may `receive` and `drop_partial`, one at a time, while
    the event loop asks for what is complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        """Around `_complete`, which both of them change."""
        self._partial: dict[str, _Partial] = {}
        self._complete: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        """Why a blob is not here that was being sent."""
        self._unstored: set[str] = set()
        """Those of them that the disk did not take."""
        for path in folder.iterdir():
            status = path.stat()
            if is_digest(path.name) and status.st_mtime == _stamp(path.name):
                self._complete[path.name] = status.st_size
            else:
                path.unlink(missing_ok=True)

    def held(self) -> list[str]:
        """The digests that need not be sent again."""
        with self._lock:
            return list(self._complete)

    def path(self, digest: str) -> Path | None:
        """Where a complete blob lies as it came, or None. Counts as a use of it."""
        path = self._folder / digest
        with self._lock:
            if digest not in self._complete:
                return None
            size = self._complete.pop(digest)
            if not _is_untouched(path, size):
                self._refused[digest] = "was changed or removed on the node's disk"
                path.unlink(missing_ok=True)
                return None
            self._complete[digest] = size
        return path

    def is_stored_nowhere(self, digest: str) -> bool:
        """Whether the disk did not take a blob when it came."""
        return digest in self._unstored

    def why_missing(self, digest: str) -> str:
        """Why a blob is not here, in words."""
        return f"blob {digest} {self._refused.get(digest, 'was not sent')}"

    def receive(self, header: dict[str, Any], body: BytesLike) -> None:
        """Take one piece. Raises `BlobRefused`, once; what had arrived of that blob is then gone."""
        digest, offset, last = header["digest"], header["offset"], header["last"]
        if not is_digest(digest):
            raise BlobRefused("not a digest")
        if digest in self._complete or (digest in self._refused and offset):
            return
        self._refused.pop(digest, None)
        self._unstored.discard(digest)
        try:
            self._take(digest, offset, body)
            if last:
                self._finish(digest, self._partial[digest], header["size"])
        except (BlobRefused, OSError) as error:
            self._drop(digest)
            words = str(error)
            if isinstance(error, OSError):
                words = f"cannot be stored on the node: {error.strerror or error}{self._free()}"
                self._unstored.add(digest)
            self._refused[digest] = words
            raise BlobRefused(words) from error

    def _take(self, digest: str, offset: int, body: BytesLike) -> None:
        if offset == 0:
            self._begin(digest)
        partial = self._partial.get(digest)
        if partial is None or partial.offset != offset:
            raise BlobRefused(f"came with a piece at {offset} where another was due")
        if partial.file.write(body) != len(body):
            raise OSError("the disk is full")
        partial.hasher.update(body)
        partial.offset += len(body)

    def _free(self) -> str:
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(self._folder).free:,} bytes are free there, in {self._folder})"
        return ""

    def drop_partial(self) -> None:
        """Forget what arrived of incomplete blobs; their sender is gone."""
        for digest in list(self._partial):
            self._drop(digest)

    def evict(self, needed: set[str]) -> None:
        """Remove blobs that nobody needs, longest unused first, down to the limit."""
        with self._lock:
            total = sum(self._complete.values())
            for digest in [one for one in self._complete if one not in needed]:
                if total <= _KEEP_BYTES:
                    return
                total -= self._complete.pop(digest)
                (self._folder / digest).unlink(missing_ok=True)

    def _begin(self, digest: str) -> None:
        self._drop(digest)
        if len(self._partial) >= _MAX_PARTIAL:
            raise BlobRefused("came with too many others at the same time")
        file = (self._folder / f"{digest}.part").open("wb", buffering=0)
        self._partial[digest] = _Partial(file, hashlib.sha256())

    def _finish(self, digest: str, partial: _Partial, size: int) -> None:
        if partial.offset != size or partial.hasher.hexdigest() != digest:
            raise BlobRefused("came with other bytes than its digest says")
        del self._partial[digest]
        partial.file.close()
        with self._lock:
            path = (self._folder / f"{digest}.part").rename(self._folder / digest)
            os.utime(path, (_stamp(digest), _stamp(digest)))
            self._complete[digest] = size

    def _drop(self, digest: str) -> None:
        partial = self._partial.pop(digest, None)
        if partial is not None:
            partial.file.close()
            with contextlib.suppress(OSError):
                (self._folder / f"{digest}.part").unlink()


def _is_untouched(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == size and status.st_mtime == _stamp(path.name)


def _stamp(digest: str) -> int:
    """The time, long past, that a blob's file carries for as long as the machine runs."""
    return int.from_bytes(hashlib.sha256(f"{_machine_start()} {digest}".encode()).digest()[:3])


@functools.cache
def _machine_start() -> str:
    """Another one each time that the machine starts; only Linux says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
