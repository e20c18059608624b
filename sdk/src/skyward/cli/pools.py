"""`skyward pools`: the pools of a namespace, and how they are."""

from skyward.cli.options import JsonOption, NamespaceOption
from skyward.cli.table import show
from skyward.contract.names import POOL


def pools(namespace: NamespaceOption = None, json: JsonOption = False) -> None:
    """List pools: phase, nodes, hardware, price, cost so far."""
    show(
        POOL,
        namespace,
        {
            "NAME": "metadata.name",
            "PHASE": "status.phase",
            "NODES": "status.display.nodes",
            "HARDWARE": "status.display.hardware",
            "$/H": "status.display.hourly",
            "SPENT": "status.display.spent",
            "REASON": "status.reason",
            "AGE": "metadata.creationTimestamp",
        },
        as_json=json,
    )
