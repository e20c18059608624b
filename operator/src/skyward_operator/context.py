"""What every part of the operator is built with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.engine.supervisor import Supervisor
    from skyward_operator.kube.api import Api
    from skyward_operator.kube.events import Events
    from skyward_operator.kube.lease import Leadership
    from skyward_operator.kube.store import Store
    from skyward_operator.metrics import Metrics
    from skyward_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The one argument of the factories `nodes.build`, `tasks.build`, `pools.build` and `gateway.build`.

    Writes of `api` are fenced by the lease and land in `store`. Anything else that acts on the world
    (a provider call, a frame to an agent) calls `leadership.check()` first.
    """

    settings: Settings
    api: Api
    store: Store
    events: Events
    clock: Clock
    metrics: Metrics
    supervisor: Supervisor
    leadership: Leadership
