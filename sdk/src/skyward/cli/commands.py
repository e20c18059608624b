"""The commands that look at and end what the SDK makes; `main` adds them to the `skyward` command."""

import typer

from skyward.cli.down import down
from skyward.cli.hello import hello
from skyward.cli.logs import logs
from skyward.cli.nodes import nodes
from skyward.cli.offers import offers
from skyward.cli.plan import plan
from skyward.cli.pools import pools
from skyward.cli.reap import reap
from skyward.cli.result import result
from skyward.cli.tasks import tasks
from skyward.cli.why import why


def register(app: typer.Typer) -> None:
    """Add the commands to the root application."""
    for command in (hello, pools, nodes, tasks, logs, why, offers, plan, result, reap, down):
        app.command()(command)
