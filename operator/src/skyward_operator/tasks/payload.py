"""What a call carries: pickled bytes out of the task's package, or a description in JSON.

Nothing here opens a pickle. A package inside the object is decoded once per task; a larger one is mapped
from its file. The large parts of arguments stand behind it there, and are read when they are sent, so that
arguments of any size never pass through the operator's memory as a whole.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from skyward.wire.envelopes import SLICE_BYTES
from skyward.wire.package import CallPackage, PackageError
from skyward_operator.gateway.incoming import part_of
from skyward_operator.tasks.work import Terms, own_terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from skyward.wire.outcomes import Outcome
    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.work import Work

_CHUNK: Final = 1 << 20
_MOST_INSIDE: Final = 3 << 20
"""Bytes that function or arguments of a call may have in the package: they travel in one frame. The SDK lets
what is larger stand apart."""


class PayloadInvalid(ValueError):
    """The payload is not what the Task says. Only another Task helps."""


@dataclass(frozen=True, slots=True)
class CallPayload:
    """One call's content: either a function by digest with pickled arguments, or an entry in JSON."""

    digest: str | None = None
    function: memoryview | None = None
    arguments: memoryview | None = None
    """Of several calls, one behind the other."""
    entry: Mapping[str, Any] | None = None
    sizes: tuple[int, ...] = ()
    """Of several calls, the bytes of each one's arguments."""
    parts: tuple[PartFile, ...] = ()
    """What the agent has to have before it can run the call."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """Large bytes by digest: where they lie in a file."""

    digest: str
    size: int
    path: Path
    offset: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, read as they are asked for. Raises OSError; ends early where the file does."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            left = self.size
            while left and (piece := file.read(min(_CHUNK, left))):
                left -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class _Opened:
    """A package, and where each of its parts lies."""

    package: CallPackage
    parts: Mapping[str, PartFile] = field(default_factory=dict)


class Payloads:
    """The opened payloads of live tasks."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._packages: dict[str, _Opened] = {}

    def is_present(self, work: Work) -> bool:
        """Whether everything that the task's calls need is here."""
        if work.blob is None or work.uid in self._packages:
            return True
        return self._blobs.payload(work.namespace, work.uid).exists()

    def slice(self, work: Work, index: int, count: int) -> CallPayload:
        """The content of so many calls; more than one only as `fits` says. Raises PayloadInvalid."""
        if work.function is not None or work.command is not None:
            return CallPayload(entry=_entry(work, index))
        try:
            opened, number = self._open(work), 0 if work.broadcast else index
            package = opened.package
            which, arguments, sizes = package.slice(number, count)
            digest, function = package.functions[which]
            parts = tuple(opened.parts[part] for part in package.parts_of(number))
        except (PackageError, IndexError, OSError, binascii.Error) as error:
            raise PayloadInvalid(f"the payload cannot be read: {error}") from error
        if max(len(function), len(arguments)) > _MOST_INSIDE:
            raise PayloadInvalid(
                f"function or arguments of call {number} have more than {_MOST_INSIDE} bytes in the package: "
                "what is large has to stand apart, as a part"
            )
        if parts and not parts[0].path.exists():
            raise PayloadInvalid("the payload is not on the operator's disk any more")
        return CallPayload(digest, function, arguments, sizes=sizes, parts=parts)

    def failed(self, work: Work, index: int) -> Outcome | None:
        """The outcome of a call that its client could not pickle; None for one that runs."""
        if work.package is None and work.blob is None:
            return None
        try:
            return self._open(work).package.failed(0 if work.broadcast else index)
        except (PackageError, IndexError, OSError, ValueError):
            return None  # sending the call says what is wrong

    def fits(self, work: Work, index: int, count: int) -> int:
        """How many of so many calls from `index` on, at least one, may travel in one slice: of the same
        function, with the same terms, with few bytes of arguments, and with no large ones."""
        try:
            return self._open(work).package.alike(index, count, SLICE_BYTES)
        except (PackageError, IndexError, OSError, binascii.Error):
            return 1  # sending the call says what is wrong

    def terms(self, live: LiveTask, index: int) -> Terms:
        """How long one call may run and how often it is tried again: its own terms, else its task's."""
        work = live.work
        if live.open is not None:
            return live.open.terms(index) or work.terms
        if work.package is None and work.blob is None:
            return work.terms
        try:
            options = self._open(work).package.options(0 if work.broadcast else index)
        except (PackageError, IndexError, OSError, binascii.Error):
            return work.terms  # sending the call says what is wrong
        return work.terms if options is None else own_terms(options)

    def close(self, work: Work) -> None:
        """The task has ended."""
        if (opened := self._packages.pop(work.uid, None)) is not None:
            opened.package.close()

    def drop_unfinished(self, work: Work) -> None:
        """Remove what came of a payload that nobody will complete. Blocks."""
        if work.blob is not None:
            part_of(self._blobs.payload(work.namespace, work.uid)).unlink(missing_ok=True)

    def _open(self, work: Work) -> _Opened:
        opened = self._packages.get(work.uid)
        if opened is None:
            parts: dict[str, PartFile] = {}
            if work.blob is None:
                package = CallPackage(b64decode(work.package or "", validate=True))
            else:
                path, place = self._blobs.payload(work.namespace, work.uid), work.blob.size
                package = CallPackage(path, place)
                for digest, size in package.parts.items():
                    parts[digest] = PartFile(digest, size, path, place)
                    place += size
            if package.count != work.count:
                package.close()
                raise PackageError(f"it has {package.count} calls and the task says {work.count}")
            opened = self._packages[work.uid] = _Opened(package, parts)
        return opened


def _entry(work: Work, index: int) -> dict[str, Any]:
    if work.command is not None:
        entry: dict[str, Any] = {"argv": list(work.command["argv"])}
        if folder := work.command.get("workingDirectory"):
            entry["working_directory"] = folder
        if env := work.command.get("env"):
            entry["env"] = {each["name"]: each.get("value", "") for each in env}
        return entry
    function = work.function or {}
    args = list(function.get("args") or ())
    if (items := function.get("items")) is not None:
        args.insert(0, items[index])
    entry = {"args": args, "kwargs": dict(function.get("kwargs") or {})}
    for key in ("entrypoint", "source", "name"):
        if function.get(key) is not None:
            entry[key] = function[key]
    return entry
