"""What a call carries: pickled bytes out of the task's package, or a description in JSON.

Nothing here opens a pickle. A package inside the object is decoded once per task; a larger one is mapped
from its file, so that arguments of any size never pass through the operator's memory as a whole.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyward.wire.envelopes import SLICE_BYTES
from skyward.wire.package import CallPackage, PackageError
from skyward_operator.tasks.work import Terms, own_terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.tasks.work import Work

INLINE_ARGUMENTS: Final = 1 << 20
"""Arguments up to this size travel in the CALL frame; larger ones go ahead of it as a blob."""

_CHUNK: Final = 1 << 18


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


class Payloads:
    """The opened payloads of live tasks."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._packages: dict[str, CallPackage] = {}

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
            package = self._package(work)
            which, arguments, sizes = package.slice(0 if work.broadcast else index, count)
            digest, function = package.functions[which]
        except (PackageError, IndexError, OSError, binascii.Error) as error:
            raise PayloadInvalid(f"the payload cannot be read: {error}") from error
        return CallPayload(digest, function, arguments, sizes=sizes)

    def fits(self, work: Work, index: int, count: int) -> int:
        """How many of so many calls from `index` on, at least one, may travel in one slice: of the same
        function, with the same terms, and with few bytes of arguments."""
        try:
            return self._package(work).alike(index, count, SLICE_BYTES)
        except (PackageError, IndexError, OSError, binascii.Error):
            return 1  # sending the call says what is wrong

    def terms(self, work: Work, index: int) -> Terms:
        """How long one call may run and how often it is tried again: its own terms, else its task's."""
        if work.package is None and work.blob is None:
            return work.terms
        try:
            options = self._package(work).options(0 if work.broadcast else index)
        except (PackageError, IndexError, OSError, binascii.Error):
            return work.terms  # sending the call says what is wrong
        return work.terms if options is None else own_terms(options)

    def close(self, work: Work) -> None:
        """The task has ended."""
        if (package := self._packages.pop(work.uid, None)) is not None:
            package.close()

    def _package(self, work: Work) -> CallPackage:
        package = self._packages.get(work.uid)
        if package is None:
            if work.package is not None:
                package = CallPackage(b64decode(work.package, validate=True))
            else:
                package = CallPackage(self._blobs.payload(work.namespace, work.uid))
            if package.count != work.count:
                package.close()
                raise PackageError(f"it has {package.count} calls and the task says {work.count}")
            self._packages[work.uid] = package
        return package


def chunks(data: memoryview) -> Iterator[bytes]:
    """Pieces of a large argument, read one at a time."""
    for start in range(0, len(data), _CHUNK):
        yield bytes(data[start : start + _CHUNK])


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
