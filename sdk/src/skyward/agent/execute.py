"""One call inside a worker: find the function, run it, turn what comes out into bytes.

Whatever the called code raises, SystemExit included, becomes a failed result: the worker goes on. The forms
of a call are a pickled function, `module:name`, source text, and a command.
"""

import asyncio
import importlib
import inspect
import json
import linecache
import os
import subprocess
import time
import types
from collections.abc import Callable, Mapping
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, Literal

from skyward.agent.capture import run_command
from skyward.agent.returned import ResultNotStored, ResultTooLarge, Returned, keep
from skyward.agent.streams import CallStream
from skyward.wire.codec import dumps_parts, loads
from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import VALUE_LIMIT, ErrorInfo, FailureReason
from skyward.wire.errors import Damaged, NotDeserializable, NotPicklable
from skyward.wire.raised import dumps_error


class EntrypointNotFound(LookupError):
    """The task names a module or function that does not exist on the node."""


class CommandNotFound(LookupError):
    """The task names a program or folder that the node does not have, or may not use."""


class CommandFailed(Exception):
    """A command ended with another exit status than 0."""


class Functions:
    """Functions by digest, unpickled once per worker. The agent decides what is kept."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._loaded: dict[str, Callable[..., Any]] = {}

    def put(self, header: dict[str, Any], data: bytes) -> None:
        """Take a pickled function in, or drop one."""
        digest = header["digest"]
        self._loaded.pop(digest, None)
        if header.get("drop"):
            self._data.pop(digest, None)
        else:
            self._data[digest] = data

    def get(self, digest: str, path: str | None, blobs: Mapping[str, Path]) -> Callable[..., Any]:
        """The function; a large one lies in the file `path`, what it refers to by digest in `blobs`."""
        function = self._loaded.get(digest)
        if function is None:
            data = self._data.get(digest)
            function = loads(data if data is not None else _mapped(Path(path or "")), blobs)
            self._loaded[digest] = function
            self._data.pop(digest, None)
        return function


class Execution:
    """A call and how it ended: with a value, or with an `error`. It began when this was made."""

    def __init__(
        self,
        header: dict[str, Any],
        body: BytesLike,
        functions: Functions,
        *,
        captured: bool,
        stream: CallStream | None = None,
    ) -> None:
        self.stream = stream
        self._header = header
        self._body = body
        self._functions = functions
        self._captured = captured
        self.begun = time.monotonic()
        self.duration = 0.0
        self.error: ErrorInfo | None = None
        self._value: Any = None
        self._error_body: bytes = b""

    def run(self) -> None:
        """Run the call; afterwards `result` has what came out."""
        try:
            self._value = self._call()
        except BaseException as error:  # SystemExit and KeyboardInterrupt are outcomes of a call as well
            self.fail(error)
        self.duration = time.monotonic() - self.begun

    def fail(self, error: BaseException) -> None:
        """The call ended with `error`."""
        kind: Literal["User", "System"] = "User"
        reason = FailureReason.USER_EXCEPTION
        match error:
            case CommandFailed():
                reason = FailureReason.COMMAND_FAILED
            case CommandNotFound():
                reason = FailureReason.COMMAND_NOT_FOUND
            case EntrypointNotFound():
                reason = FailureReason.ENTRYPOINT_NOT_FOUND
            case Damaged():
                kind, reason = "System", FailureReason.PAYLOAD_INVALID
            case NotDeserializable():
                reason = FailureReason.NOT_DESERIALIZABLE
            case NotPicklable():
                reason = FailureReason.RESULT_NOT_PICKLABLE
            case ResultTooLarge():
                reason = FailureReason.RESULT_TOO_LARGE
            case ResultNotStored():
                kind, reason = "System", FailureReason.RESULT_NOT_STORED
        self._value = None
        self._error_body, self.error = dumps_error(error, kind=kind, reason=reason)
        self.duration = time.monotonic() - self.begun

    def result(self, spool: Path) -> tuple[dict[str, Any], BytesLike]:
        """Header and body of the RESULT; a large body is in a file in `spool` that the header names."""
        returned = self.returned(spool)
        return {"attempt": self._header["attempt"], **self.describe(returned)}, returned.body

    def describe(self, returned: Returned) -> dict[str, Any]:
        """What the header of a RESULT says about how the call ended."""
        header: dict[str, Any] = {"ok": self.error is None, "duration": self.duration, "size": returned.size}
        if self.error is not None:
            header["error"] = self.error.to_json()
        else:
            self._add_value(header)
        if returned.file is not None:
            header.update(file=returned.file.name, digest=returned.digest)
        return header

    def returned(self, spool: Path) -> Returned:
        """The bytes of the value, or of the exception. A value that cannot travel makes the call fail."""
        if self.error is None:
            try:
                return keep(dumps_parts(self._value), spool, self._header.get("largest_result"))
            except NotPicklable as error:
                self.fail(NotPicklable(f"the result of the call: {error}; return plain data instead"))
            except (ResultTooLarge, ResultNotStored) as error:
                self.fail(error)
        return self._raised(spool)

    def _raised(self, spool: Path) -> Returned:
        """The pickled exception, or nothing of one that there is no place for: its words go in any case."""
        try:
            return keep([self._error_body], spool, self._header.get("largest_result"))
        except (ResultTooLarge, ResultNotStored):
            return Returned()

    def _call(self) -> Any:
        entry = self._header.get("entry")
        if entry is not None and "argv" in entry:
            return _command(entry, captured=self._captured)
        if entry is not None:
            function = _from_entrypoint(entry) if "entrypoint" in entry else _from_source(entry)
            args, kwargs = entry.get("args") or [], entry.get("kwargs") or {}
        else:
            function, (args, kwargs) = self._unpickle()
        if self.stream is not None:
            args, kwargs = self.stream.with_inputs(args, kwargs)
        value = function(*args, **kwargs)
        if self.stream is not None and self._header.get("stream"):
            return self.stream.deliver(value)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _unpickle(self) -> tuple[Callable[..., Any], tuple[Any, Any]]:
        header = self._header
        blobs = {digest: Path(path) for digest, path in (header.get("blobs") or {}).items()}
        try:
            function = self._functions.get(header["function"], header.get("function_path"), blobs)
            path = header.get("args_path")
            return function, loads(self._body if path is None else _mapped(Path(path)), blobs)
        except NotDeserializable as error:
            raise _with_remedy(error) from error.__cause__

    def _add_value(self, header: dict[str, Any]) -> None:
        """The result in JSON beside the pickle, for those who cannot unpickle it."""
        if self._header.get("entry") is None:
            return
        try:
            text = json.dumps(self._value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return
        if len(text) < VALUE_LIMIT:
            header["value"] = json.loads(text)


def _with_remedy(error: NotDeserializable) -> NotDeserializable:
    if isinstance(error, Damaged):
        return Damaged(f"the call cannot be read on the node: {error}")
    if not error.missing:
        return NotDeserializable(
            f"the call cannot be unpickled on the node: {error}. Is the same version of every package in "
            "Image(pip=[...]) as where the call was made?"
        )
    return NotDeserializable(
        f"the call needs the module {error.missing!r}, which the node does not have. "
        f"Add the package that provides it to Image(pip=[...]), e.g. pip=[{error.missing!r}].",
        error.missing,
    )


def _from_entrypoint(entry: dict[str, Any]) -> Callable[..., Any]:
    module_name, _, path = entry["entrypoint"].partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise EntrypointNotFound(
            f"no module {error.name!r} on the node for entrypoint {entry['entrypoint']!r}. "
            "Is the package that provides it in the pool's image?"
        ) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise EntrypointNotFound(f"module {module_name!r} has no {path!r}") from None
    return _plain(found, entry["entrypoint"])


def _from_source(entry: dict[str, Any]) -> Callable[..., Any]:
    source, name = entry["source"], entry["name"]
    file = f"<source of {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = types.ModuleType("__skyward_source__")
    exec(compile(source, file, "exec"), vars(module))  # noqa: S102 - running the task's source is the task
    if name not in vars(module):
        raise EntrypointNotFound(f"the source defines no {name!r}")
    return _plain(vars(module)[name], name)


def _plain(found: Any, name: str) -> Callable[..., Any]:
    """The function itself, where `@sky.function` made a description of calls of it."""
    if type(found).__module__ == "skyward.functions" and hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    if not callable(found):
        raise EntrypointNotFound(f"{name!r} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]


def _command(entry: dict[str, Any], *, captured: bool) -> int:
    argv = [str(word) for word in entry["argv"]]
    folder = entry.get("working_directory") or None
    environment = {**os.environ, **(entry.get("env") or {})}
    try:
        status = run_command(argv, folder, environment, captured=captured)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if folder and not Path(folder).is_dir():
            raise CommandNotFound(f"the working directory {folder!r} is no folder on the node") from None
        raise CommandNotFound(f"the command {argv[0]!r} cannot be started: {error}") from None
    except subprocess.SubprocessError as error:
        raise CommandFailed(str(error)) from error
    if status != 0:
        ended = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise CommandFailed(f"{argv[0]} ended with {ended}")
    return 0


def _mapped(path: Path) -> BytesLike:
    """A file as writable memory that shares pages with its other readers until someone writes."""
    with path.open("rb") as file:
        return memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))
