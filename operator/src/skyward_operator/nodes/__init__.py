"""Nodes: one machine each, from its launch to the proof that it is gone.

    observation, observe   what is known about a node
    decide, wind_down      what to do about it; pure
    interruption, health   nodes that leave: announced by their provider, or not well; pure
    checkup                what agents check of their nodes; pure
    notices                what the providers announce
    act, machines          doing it
    session                one SSH connection per node: bootstrap, link, again when it breaks
    fleet                  which nodes take calls, for whoever has calls

`build` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.nodes.reconcile import Nodes


def build(context: Context) -> Nodes:
    """The nodes' part of the operator; `run` it once the operator leads."""
    from skyward_operator.nodes import reconcile

    return reconcile.build(context)
