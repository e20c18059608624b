"""The sweep: machines that carry this installation's tag and belong to no node are found and ended.

    observation   what a look at one account and at the nodes gave
    decide        which machines are orphans, and which of them may be ended now; pure
    look          asks the cloud first and the API server after it
    act           ends them, with their keys and groups
    report        says so: log, events, metrics
    findings      the same for a person who has asked
    loop          one round after the other, while this operator leads

The lifecycle of nodes gives back whatever it knows of. This is for what it cannot know of: an order that a
cloud carried out later than it promises, a second machine for one order, a finalizer that was removed by
hand. It fails closed: in doubt nothing is ended, and the doubt is told.

`build` puts it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.nodes.reconcile import Nodes
    from skyward_operator.sweep.loop import Sweep


def build(context: Context, nodes: Nodes) -> Sweep:
    """The sweep of one operator; `run` it once the operator leads."""
    from skyward_operator.sweep import loop

    return loop.build(context, nodes)
