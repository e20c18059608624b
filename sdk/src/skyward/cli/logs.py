"""`skyward logs TASK|NODE`: what a call printed, or how a node was made; also when the machine is gone."""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyward.cli.options import NamespaceOption
from skyward.cli.selection import Selection, parse_index, parse_since, timestamp
from skyward.cli.table import connected
from skyward.cluster import tickets
from skyward.console.lines import LineAssembler, Source
from skyward.contract.names import NODE, POOL, TASK, Kind
from skyward.errors import GatewayError

if TYPE_CHECKING:
    from skyward.cluster.api import Api

SILENCE_SECONDS = 60.0


def logs(
    name: Annotated[str, typer.Argument(metavar="TASK|NODE", help="Name of a task or of a node.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and print what comes.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only output printed since then: 10m, 1h30m, or a time (ISO 8601).")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Only these calls of a task: 3, or 0-5.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt of each call.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    namespace: NamespaceOption = None,
) -> None:
    """Print the output of a task, or the installation log of a node."""
    wanted = Selection(
        parse_since(since, time.time()) if since is not None else None,
        parse_index(index) if index is not None else None,
        attempt,
    )
    show = _Shown(wanted, timestamps)
    with connected() as api:
        _print_of(api, namespace or api.connection.namespace, name, {"follow": "1"} if follow else {}, show)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What of the output is shown, and how."""

    wanted: Selection
    timestamps: bool


def _print_of(api: "Api", place: str, name: str, query: dict[str, str], show: _Shown) -> None:
    if (task := api.get(TASK, place, name)) is not None:
        where = f"/v1/namespaces/{place}/tasks/{name}/logs"
        _print(api, name, (TASK, task), where, query, _task_rest(task), show)
    elif (node := api.get(NODE, place, name)) is not None:
        pool = api.get(POOL, place, node["spec"]["poolRef"]["name"])
        owner = (POOL, pool) if pool is not None else (NODE, node)
        _print(api, name, owner, f"/v1/namespaces/{place}/nodes/{name}/logs", query, _node_rest(node), show)
    else:
        print(f"there is no task and no node {name} in namespace {place}", file=sys.stderr)
        print("  → `skyward tasks` and `skyward nodes` list what there is", file=sys.stderr)
        raise typer.Exit(1)


def _print(
    api: "Api",
    name: str,
    owner: tuple[Kind, dict[str, Any]],
    path: str,
    query: dict[str, str],
    rest: str,
    show: _Shown,
) -> None:
    from skyward.cluster.api import ApiError
    from skyward.cluster.gateway import Gateway
    from skyward.cluster.logs import follow_task

    try:
        ticket = tickets.to_read(api, *owner)
    except ApiError as error:
        kind, obj = owner
        whose = f"{kind.singular} {obj['metadata']['name']}"
        print(f"its output is for those who may update {whose}: {error.message}", file=sys.stderr)
        print("its status says:", file=sys.stderr)
        print(rest)
        return
    gateway = Gateway(api, ticket)
    try:
        lines = LineAssembler()
        pieces = gateway.stream(path, query, SILENCE_SECONDS)
        if query and owner[0] is TASK:
            pieces = follow_task(gateway, path)
        for piece in pieces:
            if not show.wanted.takes(piece):
                continue
            prefix = f"[node {piece['rank']}] " if "rank" in piece else ""
            source: Source = (name, piece.get("index"), prefix, piece.get("stream", "stdout"))
            text = str(piece.get("text", ""))
            when = f"{timestamp(piece['time'])} " if show.timestamps and "time" in piece else ""
            if whole := lines.feed(source, text if "rank" in piece else f"{text.rstrip()}\n"):
                print("".join(f"{when}{prefix}{line}\n" for line in whole), end="", flush=True)
        for source in lines.sources():
            if last := lines.rest(source):
                print(f"{source[2]}{last}")
    except GatewayError as error:
        print(f"{error}\nits status says:", file=sys.stderr)
        print(rest)
    finally:
        gateway.close()


def _task_rest(task: dict[str, Any]) -> str:
    status = task.get("status") or {}
    problem = status.get("error") or {}
    parts = [status.get("phase"), status.get("message"), problem.get("traceback") or problem.get("message")]
    return "\n".join(str(part) for part in parts if part) or "nothing yet"


def _node_rest(node: dict[str, Any]) -> str:
    status = node.get("status") or {}
    bootstrap = status.get("bootstrap") or {}
    parts = [status.get("phase"), status.get("message"), bootstrap.get("log") or bootstrap.get("lastLine")]
    return "\n".join(str(part) for part in parts if part) or "nothing yet"
