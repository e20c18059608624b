"""`skyward config`: what is configured, where it was said, and whether it can be right."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skyward.cli.table import print_rows
from skyward.config import files, pools, settings
from skyward.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(help="What skyward.toml and the environment say.", no_args_is_help=True)


@app.command()
def path() -> None:
    """Print where the files are looked for, strongest first."""
    project = files.project_path(Path.cwd())
    rows = [(project or Path.cwd() / files.PROJECT), files.defaults_path()]
    for each in rows:
        print(f"{each}{'' if each.is_file() else '  (not there)'}")


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value was said.")] = False,
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="Form of what is printed.")
    ] = "table",
) -> None:
    """Print what holds: defaults.toml, skyward.toml over it, the environment on top."""
    known = settings.load()
    entries = [
        {"key": ".".join(map(str, each.path)), "value": each.value, "origin": each.origin}
        for each in known.entries()
    ]
    if output == "json":
        print(json.dumps(entries if origin else known.tables, indent=2, default=str))
    elif not entries:
        print("nothing is configured; `skyward config path` says where it would be")
    else:
        columns = ("key", "value", "origin")[: 3 if origin else 2]
        rows = ([_word(each[column]) for column in columns] for each in entries)
        print_rows((column.upper() for column in columns), rows)


@app.command()
def validate() -> None:
    """Check every table of every file. The exit status is 1 if one cannot be right."""
    known = settings.load()
    checks: list[Callable[[], object]] = [partial(pools.options, known)]
    checks += [partial(pools.pool, known, name) for name in pools.pool_names(known)]
    wrong = 0
    for check in checks:
        try:
            check()
        except ConfigurationError as error:
            wrong += 1
            print(f"error: {error}", file=sys.stderr)
    if wrong:
        raise typer.Exit(1)
    print("✔ " + (", ".join(str(each.path) for each in known.documents) or "there are no files"))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
