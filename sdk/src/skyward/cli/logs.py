"""`skyward logs NAME`: what a task printed, how a node was made, or both of a pool; machines may be gone."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Self

import typer

from skyward.cli.options import NamespaceOption
from skyward.cli.printer import Form, Printer
from skyward.cli.selection import Selection, parse_index, parse_since
from skyward.cli.subject import NOT_FOUND, WRONG, Subject, find, names
from skyward.cli.table import connected
from skyward.contract.names import NODE, TASK
from skyward.errors import GatewayError, SkywardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward.cluster.api import Api
    from skyward.console.lines import Source
    from skyward.console.live import LiveConsole

_COMPLETION_SECONDS = 1.0
_CLOCKS_APART = 3600.0
"""What was printed at a time by its node's clock was kept no earlier by the operator's, give or take this."""


def complete(context: typer.Context, incomplete: str) -> list[str]:
    """Names for the shell; none where the control plane does not answer at once, and never an error."""
    from skyward.cluster.api import Api
    from skyward.cluster.connection import connect

    try:
        with Api(connect(lambda step: None, start=False)) as api, api.hurried(_COMPLETION_SECONDS):
            return names(api, context.params.get("namespace") or api.connection.namespace, incomplete)
    except (SkywardError, OSError):
        return []


def logs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A task, a node or a pool; task/NAME, node/NAME or pool/NAME where it could be several.",
            autocompletion=complete,
        ),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and print what comes.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only output printed since then: 10m, 1h30m, or a time (ISO 8601).")
    ] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines, then what comes.")] = None,
    index: Annotated[str | None, typer.Option(help="Only these calls of a task: 3, or 0-5.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt of each call.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    output: Annotated[
        Form, typer.Option("--output", "-o", help="Lines as text, or one JSON object per line.")
    ] = Form.TEXT,
    namespace: NamespaceOption = None,
) -> None:
    """Print the output of a task, how a node was made, or both of a whole pool by time.

    With -f: of a task until it ends, of a node until it is ready, of a pool until it is deleted.

    Exit status: 0 printed; 1 there is no such thing, or its output cannot be had; 2 an option is wrong, or
    NAME means several things; 130 interrupted.
    """
    wanted = Selection(
        parse_since(since, time.time()) if since is not None else None,
        parse_index(index) if index is not None else None,
        attempt,
    )
    with connected() as api:
        subject = find(api, namespace or api.connection.namespace, name)
        if subject.kind is NODE and (index is not None or attempt is not None):
            print("error: a node has no calls\n  → leave --index and --attempt out", file=sys.stderr)
            raise typer.Exit(WRONG)
        if subject.kind is TASK and wanted.index is not None:
            _has_calls(subject, wanted.index, follow=follow)
        with _Screen(redraws=follow and output is Form.TEXT) as screen:
            printer = Printer(
                subject.kind,
                wanted,
                screen.write,
                form=output,
                timestamps=timestamps,
                tail=tail,
                progress=screen.progress,
            )
            begin = max(0.0, (wanted.since or 0.0) - _CLOCKS_APART)
            _print(api, subject, printer, follow=follow, begin=begin)


def _has_calls(subject: Subject, index: range, *, follow: bool) -> None:
    """End the command where a task has none of these calls, and will not have them."""
    total = ((subject.obj.get("status") or {}).get("counts") or {}).get("total")
    calls = subject.obj["spec"].get("calls") or {}
    if total is None or total > index.start or (calls.get("open") and follow):
        return
    have = f"{total:,} calls, 0 to {total - 1}" if total > 1 else f"{total} call" + (", 0" if total else "s")
    print(
        f"error: task {subject.name} has no call {index.start}: it has {have}\n"
        f"  → leave --index out, or name one of these",
        file=sys.stderr,
    )
    raise typer.Exit(NOT_FOUND)


class _Screen:
    """Where lines go: stdout, and on a terminal what functions overwrite is redrawn below them."""

    def __init__(self, *, redraws: bool) -> None:
        self._console: LiveConsole | None = None
        if redraws and sys.stdout.isatty():
            from skyward.console import live

            self._console = live.LiveConsole(sys.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._console is not None:
            self._console.close()

    @property
    def progress(self) -> "Callable[[Source, str], None] | None":
        """What is told of lines that overwrite themselves, where they can be redrawn."""
        console = self._console
        if console is None:
            return None
        return lambda source, text: console.progress(source, "", text)

    def write(self, lines: list[str]) -> None:
        """Whole lines, above those that are redrawn."""
        if self._console is not None and self._console.has_progress:
            self._console.remote_lines("", lines, "stdout")
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()


def _print(api: "Api", subject: Subject, printer: Printer, *, follow: bool, begin: float) -> None:
    from skyward.cluster import tickets
    from skyward.cluster.api import ApiError
    from skyward.cluster.gateway import Gateway
    from skyward.cluster.logs import read_output

    try:
        ticket = tickets.to_read(api, *subject.owner)
    except ApiError as error:
        kind, obj = subject.owner
        whose = f"{kind.singular} {obj['metadata']['name']}"
        _give_up(f"its output is for those who may update {whose}: {error.message}", subject)
        raise typer.Exit(NOT_FOUND) from error
    gateway = Gateway(api, ticket)
    try:
        for record in read_output(gateway, subject.path, follow=follow, since=begin):
            if record is not None:
                printer.take(record)
            elif follow:
                printer.caught_up()
    except GatewayError as error:
        printer.finish()
        _give_up(f"{error}", subject)
        raise typer.Exit(NOT_FOUND) from error
    finally:
        gateway.close()
    printer.finish()


def _give_up(problem: str, subject: Subject) -> None:
    print(f"error: {problem}\nits status says:\n{subject.rest}", file=sys.stderr)
