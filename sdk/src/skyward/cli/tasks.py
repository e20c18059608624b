"""`skyward tasks`: what runs, waits, and has ended."""

from skyward.cli.options import JsonOption, NamespaceOption, PoolArgument
from skyward.cli.table import show
from skyward.contract.names import TASK


def tasks(pool: PoolArgument = None, namespace: NamespaceOption = None, json: JsonOption = False) -> None:
    """List tasks, of one POOL or of all: phase, progress, node, duration."""
    show(
        TASK,
        namespace,
        {
            "NAME": "metadata.name",
            "POOL": "spec.poolRef.name",
            "PHASE": "status.phase",
            "PROGRESS": "status.display.progress",
            "REASON": "status.reason",
            "NODE": "status.node",
            "DURATION": "status.display.duration",
            "COST": "status.cost.total",
            "AGE": "metadata.creationTimestamp",
        },
        as_json=json,
        pool=pool,
    )
