"""The gateway: payloads in, results and output out, over HTTP and beside the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.gateway.service import Gateway
    from skyward_operator.nodes.reconcile import Nodes
    from skyward_operator.sweep.loop import Sweep
    from skyward_operator.tasks import Tasks


def build(context: Context, tasks: Tasks, nodes: Nodes | None = None, sweep: Sweep | None = None) -> Gateway:
    """The gateway of one operator; `run` serves it, `url` says where."""
    from skyward_operator.gateway import service  # its stores are used by tasks, which it uses in turn

    return service.build(context, tasks, nodes, sweep)
