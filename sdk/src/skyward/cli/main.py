"""The `skyward` command: a root with nothing of its own but `version`, and how errors are shown.

Commands live in modules beside this one. An error of ours is two lines, what happened and what to do; a
traceback is for what nobody expected.
"""

import sys
from typing import Annotated

import typer

import skyward
from skyward.cli import commands, config, local
from skyward.errors import SkywardError

INTERRUPTED = 130

app = typer.Typer(
    name="skyward",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(local.app, name="local")
app.add_typer(config.app, name="config")
commands.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ephemeral compute that feels like a function call."""


@app.command()
def version() -> None:
    """Print the version."""
    print(skyward.__version__)


def main() -> None:
    """Run the command line; the exit status is 1 for an error that was explained."""
    try:
        app()
    except SkywardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
