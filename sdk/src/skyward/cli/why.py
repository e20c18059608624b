"""`skyward why NAME`: where a task, a node or a pool stands, what it waits for, and what to do about it.

Reads objects only: who may see them may ask, without an operator that answers.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyward.cli.explain import Explanation, explain_node, explain_pool, explain_task
from skyward.cli.logs import complete
from skyward.cli.options import NamespaceOption
from skyward.cli.subject import NOT_FOUND, Subject, find
from skyward.cli.table import connected, print_rows
from skyward.console.board import elapsed
from skyward.contract.names import NODE, POOL, TASK

if TYPE_CHECKING:
    from skyward.cluster.api import Api

_NODES_SHOWN = 8


class Form(StrEnum):
    """How an explanation is written."""

    TEXT = "text"
    JSON = "json"


def why(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A pool, a task or a node; pool/NAME, task/NAME or node/NAME where it could be several.",
            autocompletion=complete,
        ),
    ],
    output: Annotated[Form, typer.Option("--output", "-o", help="Text, or one JSON object.")] = Form.TEXT,
    namespace: NamespaceOption = None,
) -> None:
    """Say where something stands, what it waits for since when, what was tried, and what to do.

    Exit status: 0 explained; 1 there is no such thing; 2 NAME means several things.
    """
    with connected() as api:
        subject = find(api, namespace or api.connection.namespace, name)
        explained = _explain(api, subject)
    if explained is None:
        print(f"node {subject.name} is gone; `skyward logs {subject.name}` shows how it was made")
        raise typer.Exit(NOT_FOUND)
    if output is Form.JSON:
        print(json.dumps(explained.document(), indent=2))
        return
    now = datetime.now(UTC)
    for line in lines(explained, now):
        print(line)
    tried = explained.tried or next((each.tried for each in explained.beneath if each.tried), ())
    if tried:
        print("\noffers that were asked for, newest first:")
        rows = [tried_row(each, now) for each in tried]
        print_rows(rows[0], (row.values() for row in rows), wraps="WORDS")


def lines(explained: Explanation, now: datetime, depth: int = 0) -> list[str]:
    """An explanation as text; what it depends on is indented below it."""
    pad = "  " * depth
    words = [explained.phase] + ([explained.reason] if explained.reason not in ("", explained.phase) else [])
    if explained.since is not None:
        words.append(f"for {elapsed(max(0.0, (now - explained.since).total_seconds()))}")
    told = [f"{pad}{explained.subject}: {', '.join(words)}"]
    if explained.message:
        told.append(f"{pad}  {explained.message}")
    if explained.waits_for:
        told.append(f"{pad}  waits for: {explained.waits_for}")
    if explained.next_try is not None and explained.next_try > now:
        left = elapsed((explained.next_try - now).total_seconds())
        told.append(f"{pad}  asks again: in {left} ({explained.next_try:%H:%M:%S} UTC)")
    if explained.to_do:
        told.append(f"{pad}  to do: {explained.to_do}")
    for each in explained.beneath[:_NODES_SHOWN]:
        told += lines(each, now, depth + 1)
    if (more := len(explained.beneath) - _NODES_SHOWN) > 0:
        told.append(f"{pad}  … and {more} more nodes that are not ready; `skyward nodes` lists them")
    return told


def tried_row(entry: Any, now: datetime) -> dict[str, str]:
    """One offer that was asked for, as a row."""
    time, retry = entry.get("time"), entry.get("retryTime")
    again = (datetime.fromisoformat(retry) - now).total_seconds() if retry else 0.0
    return {
        "AGO": elapsed(max(0.0, (now - datetime.fromisoformat(time)).total_seconds())) if time else "-",
        "PROVIDER": entry.get("provider") or "-",
        "REGION": entry.get("region") or "-",
        "TYPE": entry.get("instanceType") or "-",
        "MARKET": entry.get("market") or "-",
        "$/H": entry.get("hourlyPrice") or "-",
        "OUTCOME": entry.get("outcome") or "-",
        "TIMES": str(entry.get("count") or 1),
        "AGAIN IN": elapsed(again) if again > 0 else "-",
        "WORDS": entry.get("message") or "-",
    }


def _explain(api: "Api", subject: Subject) -> Explanation | None:
    namespace = subject.namespace
    if subject.kind is POOL:
        return explain_pool(subject.obj, _of_pool(api, NODE, namespace, subject.name))
    if not subject.obj:
        return None
    pool_name = subject.obj["spec"]["poolRef"]["name"]
    pool = api.get(POOL, namespace, pool_name)
    if subject.kind is NODE:
        return explain_node(subject.obj, pool)
    nodes = _of_pool(api, NODE, namespace, pool_name)
    tasks = _of_pool(api, TASK, namespace, pool_name)
    uid = subject.obj["metadata"].get("uid")
    others = [task for task in tasks if task["metadata"].get("uid") != uid]
    return explain_task(subject.obj, pool, nodes, others)


def _of_pool(api: "Api", kind: Any, namespace: str, pool: str) -> list[dict[str, Any]]:
    items, _ = api.list(kind, namespace)
    return [item for item in items if (item["spec"].get("poolRef") or {}).get("name") == pool]
