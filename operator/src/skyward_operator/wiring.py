"""Which parts an operator has, and who is told what by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward_operator import gateway, nodes, pools, sweep, tasks
from skyward_operator.main import Parts

if TYPE_CHECKING:
    from skyward_operator.context import Context


def wire(context: Context) -> Parts:
    """The parts of the operator, not yet running."""
    node_part = nodes.build(context)
    task_part = tasks.build(context, node_part.fleet)
    node_part.fleet.listen(task_part.listener)
    pool_part = pools.build(context, task_part, node_part.purse, node_part.placement.tried)
    sweep_part = sweep.build(context, node_part)
    gateway_part = gateway.build(context, task_part, node_part, sweep_part)
    loops = {
        "gateway": gateway_part.run,
        "tasks": task_part.run,
        "nodes": node_part.run,
        "pools": pool_part.run,
        "prices": node_part.prices.run,
        "sweep": sweep_part.run,
    }
    return Parts(loops, gateway_part.url)
