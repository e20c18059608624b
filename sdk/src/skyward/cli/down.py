"""`skyward down POOL`: delete a pool and stay until its machines are proved gone."""

import time
from typing import Annotated

import typer

from skyward.cli.table import NamespaceOption, connected
from skyward.cluster.api import Api
from skyward.console import Subject, open_console
from skyward.contract.names import LABEL_POOL, NODE, POOL

UNCONFIRMED = 8
_LOOK_SECONDS = 0.5


def down(
    pool: Annotated[str, typer.Argument(help="Name of the pool.")],
    namespace: NamespaceOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the proof.")] = 300.0,
) -> None:
    """Delete a pool and wait until its last machine is gone."""
    console = open_console()
    api = connected()
    place = namespace or api.connection.namespace
    existed = api.delete(POOL, place, pool)
    deadline = time.monotonic() + timeout
    subject = Subject("pool", pool)
    while left := _left(api, place, pool):
        if time.monotonic() > deadline:
            console.clear(f"⚠ not confirmed gone after {timeout:.0f} s: {', '.join(left)}")
            raise typer.Exit(UNCONFIRMED)
        console.update(subject, f"deleting: {', '.join(left)}")
        time.sleep(_LOOK_SECONDS)
    console.clear()
    known = "" if existed else f" (there was no pool {pool} in namespace {place})"
    print(f"✔ nothing left running of pool {pool}{known}")


def _left(api: Api, namespace: str, pool: str) -> list[str]:
    nodes, _ = api.list(NODE, namespace, labelSelector=f"{LABEL_POOL}={pool}")
    names = [f"node {node['metadata']['name']}" for node in nodes]
    if not names and api.get(POOL, namespace, pool) is not None:
        return [f"pool {pool}"]
    return names
