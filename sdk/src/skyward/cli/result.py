"""`skyward result TASK`: what a task returned, also after the program that sent it has ended.

The results are unpickled here: ask for those of people whom you would run code from.
"""

import json
import pickle
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from skyward.cli.options import NamespaceOption


class Output(StrEnum):
    """How a result is written."""

    JSON = "json"
    REPR = "repr"
    PICKLE = "pickle"


def result(
    name: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task.")],
    output: Annotated[
        Output, typer.Option("--output", "-o", help="As JSON, as Python shows it, or pickled.")
    ] = Output.JSON,
    to: Annotated[Path | None, typer.Option("--to", help="Write to this file.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait for the end; no limit without it.")
    ] = None,
    namespace: NamespaceOption = None,
) -> None:
    """Wait for the end of a task and print what it returned: of one call the value, of several a list.

    Results are unpickled, which runs code of whoever sent the task.
    """
    from skyward.reference import task

    if output is Output.PICKLE and to is None and sys.stdout.isatty():
        _refuse("a pickle is nothing for a terminal", "name a file with --to, or send the output into one")
    try:
        value = task(name, namespace).result(timeout)
    except TimeoutError as error:
        _refuse(str(error), "ask again later, or give it more time with --timeout")
    written = _written(value, output)
    if to is not None:
        to.write_bytes(written)
    else:
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()


def _written(value: Any, output: Output) -> bytes:
    match output:
        case Output.PICKLE:
            return pickle.dumps(value, protocol=5)
        case Output.REPR:
            return f"{value!r}\n".encode()
        case Output.JSON:
            try:
                return f"{json.dumps(value, indent=2)}\n".encode()
            except (TypeError, ValueError) as error:
                _refuse(f"the result cannot be written as JSON: {error}", "use --output repr or pickle")


def _refuse(problem: str, remedy: str) -> NoReturn:
    print(f"error: {problem}\n  → {remedy}", file=sys.stderr)
    raise typer.Exit(1)
