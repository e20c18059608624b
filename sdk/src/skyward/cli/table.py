"""Lists of objects, as a table for people and as JSON for programs.

What talks to the API server and what draws tables takes half a second to import: only a command that needs it
pays for it, not `--help` and not the completion of a word.
"""

import json as json_module
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from skyward.console import open_console
from skyward.console.board import elapsed
from skyward.contract.names import Kind

if TYPE_CHECKING:
    from skyward.cluster.api import Api


def connected(*, start: bool = False) -> "Api":
    """A connection, with its steps shown if it takes long."""
    from skyward.session import open_api

    console = open_console()
    try:
        return open_api(console, start=start)
    finally:
        console.close()


def show(
    kind: Kind, namespace: str | None, columns: Mapping[str, str], *, as_json: bool, pool: str | None = None
) -> None:
    """Print the objects of a kind, of one pool or all; `columns` are titles and paths into the object."""
    with connected() as api:
        place = namespace or api.connection.namespace
        items, _ = api.list(kind, place)
    if pool is not None:  # only what the SDK makes has a label for it
        items = [item for item in items if _at(item, "spec.poolRef.name") == pool]
    items.sort(key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]))
    if as_json:
        json_module.dump(items, sys.stdout, indent=2)
        print()
        return
    if not items:
        print(f"no {kind.plural} in namespace {place}")
        return
    rows = ([_cell(title, _at(item, path)) for title, path in columns.items()] for item in items)
    print_rows(columns, rows)


def print_rows(titles: Iterable[str], rows: Iterable[Iterable[str]], wraps: str = "") -> None:
    """Print rows of words below their titles; the column `wraps` may take several lines."""
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=title != wraps, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    # A pipe has no width: nothing is cut off there.
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "500"))
    Terminal(highlight=False, width=width).print(table, soft_wrap=True)


def _at(item: Any, path: str) -> Any:
    for step in path.split("."):
        item = item.get(step) if isinstance(item, dict) else None
    return item


def _cell(title: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if title == "AGE":
        return elapsed((datetime.now(UTC) - datetime.fromisoformat(value)).total_seconds())
    return str(value)
