"""Options that several commands have. This and the commands import nothing slow before they run."""

from typing import Annotated

import typer

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace to look into.")]
PoolArgument = Annotated[
    str | None, typer.Argument(metavar="[POOL]", help="Name of a pool; all pools without it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the objects as JSON.")]
