"""`skyward down POOL`: delete a pool and stay until its machines are proved gone."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from skyward.cli.options import NamespaceOption
from skyward.cli.table import connected
from skyward.console import Subject, open_console
from skyward.contract.names import LABEL_POOL, NODE, POOL

if TYPE_CHECKING:
    from skyward.cluster.api import Api

UNCONFIRMED = 8
_LOOK_SECONDS = 0.5


def down(
    pool: Annotated[str, typer.Argument(help="Name of the pool.")],
    namespace: NamespaceOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the proof.")] = 300.0,
) -> None:
    """Delete a pool and wait until its last machine is gone."""
    with connected() as api:
        place = namespace or api.connection.namespace
        existed = api.delete(POOL, place, pool)
        left = _wait_gone(api, place, pool, timeout)
    if left:
        print(f"⚠ not confirmed gone after {timeout:.0f} s: {', '.join(left)}")
        raise typer.Exit(UNCONFIRMED)
    known = "" if existed else f" (there was no pool {pool} in namespace {place})"
    print(f"✔ nothing left running of pool {pool}{known}")


def _wait_gone(api: "Api", namespace: str, pool: str, seconds: float) -> list[str]:
    """Look until nothing is left or the time is over; what is left then."""
    console, subject = open_console(), Subject("pool", pool)
    deadline = time.monotonic() + seconds
    try:
        while (left := _left(api, namespace, pool)) and time.monotonic() < deadline:
            console.update(subject, f"deleting: {', '.join(left)}")
            time.sleep(_LOOK_SECONDS)
        return left
    finally:
        console.close()


def _left(api: "Api", namespace: str, pool: str) -> list[str]:
    nodes, _ = api.list(NODE, namespace, labelSelector=f"{LABEL_POOL}={pool}")
    names = [f"node {node['metadata']['name']}" for node in nodes]
    if not names and api.get(POOL, namespace, pool) is not None:
        return [f"pool {pool}"]
    return names
