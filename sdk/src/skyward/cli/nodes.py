"""`skyward nodes`: the machines of a namespace, one line each."""

from skyward.cli.options import JsonOption, NamespaceOption, PoolArgument
from skyward.cli.table import show
from skyward.contract.names import NODE


def nodes(pool: PoolArgument = None, namespace: NamespaceOption = None, json: JsonOption = False) -> None:
    """List nodes, of one POOL or of all: phase, address, price."""
    show(
        NODE,
        namespace,
        {
            "NAME": "metadata.name",
            "POOL": "spec.poolRef.name",
            "RANK": "spec.rank",
            "PHASE": "status.phase",
            "REASON": "status.reason",
            "ADDRESS": "status.display.address",
            "$/H": "status.display.hourly",
            "AGE": "metadata.creationTimestamp",
        },
        as_json=json,
        pool=pool,
    )
