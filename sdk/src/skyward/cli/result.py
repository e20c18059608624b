"""`skyward result TASK`: what a task returned, also after the program that sent it has ended.

The results are unpickled here: ask for those of people whom you would run code from.
"""

import json
import pickle
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from skyward.cli.options import NamespaceOption
from skyward.cli.records import Wanted, print_records
from skyward.cli.selection import parse_index
from skyward.errors import RemoteTraceback, SkywardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyward.records import CallRecord


class Output(StrEnum):
    """How a result is written."""

    JSON = "json"
    TEXT = "text"
    REPR = "repr"
    PICKLE = "pickle"


class OnErrorChoice(StrEnum):
    """What becomes of calls that failed."""

    RAISE = "raise"
    RETURN = "return"


def result(
    name: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task.")],
    output: Annotated[
        Output | None,
        typer.Option(
            "--output",
            "-o",
            help="json (unless given), repr (as Python shows it) or pickle; with --records text (unless "
            "given) or json, an object per line.",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write to this file.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait for the end; no limit without it.")
    ] = None,
    on_error: Annotated[
        OnErrorChoice,
        typer.Option(help="Where calls failed: print the first failure, or all values, errors in places."),
    ] = OnErrorChoice.RAISE,
    records: Annotated[
        bool,
        typer.Option(
            "--records", help="Print how each call ended instead: attempts, node, times, error; no values."
        ),
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="With --records: only calls that failed.")] = False,
    index: Annotated[str | None, typer.Option(help="With --records: only these calls, 3 or 0-5.")] = None,
    namespace: NamespaceOption = None,
) -> None:
    """Wait for the end of a task and print what it returned: of one call the value, of several a list.

    Results are unpickled, which runs code of whoever sent the task; --records unpickles nothing.

    Exit status: 0 printed; 1 a call failed (what it raised is on stderr), or there is no result.
    """
    if records:
        if output not in (None, Output.TEXT, Output.JSON) or to is not None or timeout is not None:
            _refuse("--records goes with --output text or json, --failed and --index", "leave the others out")
        wanted = Wanted(failed, parse_index(index) if index is not None else None)
        print_records(_records(name, namespace), wanted, as_json=output is Output.JSON)
        return
    if failed or index is not None or output is Output.TEXT:
        _refuse("--failed, --index and --output text are for records", "add --records")
    output = output or Output.JSON
    if output is Output.PICKLE and to is None and sys.stdout.isatty():
        _refuse("a pickle is nothing for a terminal", "name a file with --to, or send the output into one")
    written = _written(_value(name, namespace, timeout, on_error), output, on_error)
    if to is not None:
        to.write_bytes(written)
    else:
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()


def _records(name: str, namespace: str | None) -> "Iterator[CallRecord]":
    from skyward.reference import task

    return task(name, namespace).records()


def _value(name: str, namespace: str | None, timeout: float | None, on_error: OnErrorChoice) -> Any:
    from skyward.reference import task

    try:
        return task(name, namespace).result(timeout, on_error.value)
    except Exception as error:
        remote = _remote(error)
        if remote is None and not isinstance(error, SkywardError):
            if isinstance(error, TimeoutError):
                _refuse(str(error), "ask again later, or give it more time with --timeout")
            raise
        _show(error, remote)
        raise typer.Exit(1) from error


def _remote(error: BaseException) -> RemoteTraceback | None:
    """The traceback on the node, behind the causes of what a call raised."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, RemoteTraceback):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _show(error: Exception, remote: RemoteTraceback | None) -> None:
    """Type, message, traceback on the node, where it ran, and which calls failed."""
    notes = getattr(error, "__notes__", ())
    if isinstance(error, SkywardError):
        words = [str(error), *notes]
    else:
        words = ["".join(traceback.format_exception_only(error)).rstrip()]  # with its notes
    if remote is not None:
        words.append(f"on the node:\n{remote.text.rstrip()}")
    if any("calls failed" in note for note in notes):
        words.append(
            "  → --on-error return prints the values of the others, and each error in its place; "
            "--records --failed lists what failed"
        )
    print(f"error: {'\n'.join(words)}", file=sys.stderr)


def _written(value: Any, output: Output, on_error: OnErrorChoice) -> bytes:
    match output:
        case Output.PICKLE:
            try:
                return pickle.dumps(value, protocol=5)
            except Exception as error:
                _refuse(f"the result cannot be pickled: {error}", "use --output repr")
        case Output.REPR:
            return f"{value!r}\n".encode()
        case _:
            default = _error_as_json if on_error is OnErrorChoice.RETURN else None
            try:
                return f"{json.dumps(value, indent=2, default=default)}\n".encode()
            except (TypeError, ValueError) as error:
                _refuse(f"the result cannot be written as JSON: {error}", "use --output repr or pickle")


def _error_as_json(value: Any) -> Any:
    """What stands in the place of the value of a call that failed."""
    if not isinstance(value, Exception):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    message = value.message if isinstance(value, SkywardError) else str(value)
    return {"error": {"type": type(value).__qualname__, "message": message}}


def _refuse(problem: str, remedy: str) -> NoReturn:
    print(f"error: {problem}\n  → {remedy}", file=sys.stderr)
    raise typer.Exit(1)
