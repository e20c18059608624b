"""What a pool says of itself. Pure: an observation and a decision in, a JSON document out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.meta import clip, condition
from skyward.contract.names import POOL_FINALIZER, pool_selector
from skyward.contract.reasons import (
    POOL_CONDITIONS,
    ConditionType,
    NodePhase,
    NodeReason,
    PoolPhase,
    PoolReason,
    next_step,
)
from skyward_operator.engine.clock import timestamp
from skyward_operator.kube.cascade import others
from skyward_operator.money.balance import WRITE_SECONDS
from skyward_operator.pools.decide import CURABLE
from skyward_operator.pools.scale import minimum_nodes
from skyward_operator.pools.unsupported import ignored_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from skyward_operator.pools.decide import Decision
    from skyward_operator.pools.observation import NodeView, Observation

type State = tuple[PoolPhase, PoolReason, str]


@dataclass(frozen=True, slots=True)
class Offers:
    """What the pool's nodes asked for, newest first, and when one that waits asks again."""

    tried: Sequence[Mapping[str, Any]] = ()
    next_try: datetime | None = None


NO_OFFERS: Final = Offers()

_ORDER = (NodePhase.BOOTSTRAPPING, NodePhase.CONNECTING, NodePhase.LAUNCHING, NodePhase.PENDING)
_STEP = {
    NodePhase.BOOTSTRAPPING: PoolReason.BOOTSTRAPPING,
    NodePhase.CONNECTING: PoolReason.CONNECTING,
    NodePhase.LAUNCHING: PoolReason.LAUNCHING,
    NodePhase.PENDING: PoolReason.LAUNCHING,
}


def pool_status(
    seen: Observation, decision: Decision, now: datetime, offers: Offers = NO_OFFERS
) -> dict[str, Any]:
    """The whole status, as a merge patch."""
    scaled = scaling(seen, decision)
    return (
        _state_of(seen, decision, now)
        | {
            "offersTried": list(offers.tried),
            "nextTryTime": timestamp(offers.next_try) if offers.next_try else None,
        }
        | ({"scaling": scaled | {"time": timestamp(now)}} if scaled else {})
    )


def scaling(seen: Observation, decision: Decision) -> dict[str, Any] | None:
    """The change of the number of nodes that are wanted, and why; None if it stays."""
    before, wanted = seen.current, decision.wanted
    if before is None or before == wanted or seen.pool.metadata.is_deleted:
        return None
    reason = PoolReason.SCALING_UP if wanted > before else PoolReason.SCALING_DOWN
    text = f"from {before} to {wanted} node{'' if wanted == 1 else 's'}: {decision.why}"
    return {"fromNodes": before, "toNodes": wanted, "reason": str(reason), "message": clip(text)}


def is_usable(seen: Observation, decision: Decision) -> bool:
    """Whether the pool takes calls. Without any node it does if they are made when there are calls."""
    if seen.pool.metadata.is_deleted:
        return False
    ready = sum(node.ready for node in seen.nodes)
    startable = not (decision.stalled or decision.broke or seen.pool.spec.suspend)
    return ready >= minimum_nodes(seen.pool.spec) and (ready > 0 or startable)


def _state_of(seen: Observation, decision: Decision, now: datetime) -> dict[str, Any]:
    pool = seen.pool
    ready = sum(node.ready for node in seen.nodes)
    phase, reason, message = pool_state(seen, decision)
    failures = decision.failures
    return {
        "observedGeneration": pool.metadata.generation,
        "phase": str(phase),
        "reason": str(reason),
        "message": clip(_with_remedy(reason, message)),
        "selector": pool_selector(pool.metadata.name),
        "desiredNodes": decision.wanted,
        "nodes": {
            "total": len(seen.nodes),
            "ready": ready,
            "launching": sum(node.making for node in seen.nodes),
            "failed": sum(node.failed for node in seen.nodes),
        },
        "usable": is_usable(seen, decision),
        "failures": {
            "count": failures.count,
            "generation": failures.generation,
            "reason": failures.reason,
            "message": failures.message,
            "log": clip(failures.log, 16384, keep="tail"),
        }
        if failures.count
        else None,
        **_cost(seen, now),
        "display": {
            "nodes": f"{ready}/{decision.wanted}",
            "hardware": _hardware(seen),
            **_cost_shown(seen, now),
        },
        "conditions": _conditions(seen, decision, (phase, reason, message), now),
    }


def pool_state(seen: Observation, decision: Decision) -> State:
    """Phase, reason and message."""
    spec, wanted = seen.pool.spec, decision.wanted
    ready = sum(node.ready for node in seen.nodes)
    left = len(seen.nodes)
    if seen.pool.metadata.is_deleted:
        return PoolPhase.DELETING, PoolReason.DELETING, _awaited(seen)
    if decision.broke is not None and not spec.suspend:
        return PoolPhase.STALLED, *decision.broke
    if decision.stalled:
        return PoolPhase.STALLED, _pool_reason(decision.failures.reason), _failure_text(decision)
    if spec.suspend:
        if left:
            return PoolPhase.SUSPENDED, PoolReason.DRAINING, f"releasing {left} nodes"
        return PoolPhase.SUSPENDED, PoolReason.SUSPENDED, "no nodes, no cost"
    if wanted == 0:
        if spec.nodes.max and left:
            return PoolPhase.READY, PoolReason.SCALING_DOWN, f"no node wanted: {_leaving(seen)}"
        if spec.nodes.max:
            return PoolPhase.READY, PoolReason.AWAITING_TASKS, "nodes are made when a task is queued"
        return PoolPhase.PENDING, PoolReason.NO_NODES_WANTED, "spec.nodes.desired is 0"
    if bad := [node.name for node in seen.nodes if node.bad]:
        return PoolPhase.DEGRADED, PoolReason.NODES_UNHEALTHY, _unhealthy(seen, bad)
    if ready >= wanted:
        text = (
            f"{ready} of {wanted} nodes ready" if ready == wanted else f"{ready} nodes ready, {wanted} wanted"
        )
        if leaving := _going(seen):
            return PoolPhase.READY, PoolReason.REPLACING_NODES, f"{text}; {leaving}"
        if left > wanted:
            return PoolPhase.READY, PoolReason.SCALING_DOWN, f"{text}: {_leaving(seen)}"
        if outdated := [node.name for node in seen.nodes if node.outdated]:
            names = ", ".join(outdated[:4]) + (", …" if len(outdated) > 4 else "")
            text = f"{text}; {len(outdated)} of them with an earlier image or worker setting: {names}"
            return PoolPhase.READY, PoolReason.NODES_OUTDATED, text
        return PoolPhase.READY, PoolReason.ALL_NODES_READY, text
    return _incomplete(seen, decision, ready)


def _going(seen: Observation) -> str:
    """The nodes that leave by themselves, and why."""
    going = [f"{node.name} leaves ({node.reason})" for node in seen.nodes if node.leaving]
    return ", ".join(going[:3]) + (", …" if len(going) > 3 else "")


def _unhealthy(seen: Observation, bad: list[str]) -> str:
    """That bad nodes stay, and why: they say it themselves."""
    why = next(node.message for node in seen.nodes if node.bad)
    return f"{', '.join(bad[:4])}{', …' if len(bad) > 4 else ''}: {why}"


def _leaving(seen: Observation) -> str:
    """What becomes of nodes that are not wanted."""
    left, released = len(seen.nodes), sum(node.deleting or node.failed for node in seen.nodes)
    return f"{released} being released" if released else f"{left} nodes, of which those that are idle go"


def _awaited(seen: Observation) -> str:
    """What keeps a deleted pool."""
    for number, what in ((len(seen.nodes), "node"), (seen.live_tasks, "task")):
        if number:
            return f"waiting for {number} {what}{'s' if number > 1 else ''} to end"
    if foreign := others(seen.pool.metadata.finalizers, POOL_FINALIZER):
        return f"all is released; kept by finalizers of others: {', '.join(foreign)}"
    return "all is released"


def _incomplete(seen: Observation, decision: Decision, ready: int) -> State:
    text = f"{ready} of {decision.wanted} nodes ready"
    for said in filter(None, (_going(seen), _progress(seen))):
        text = f"{text}; {said}"
    if decision.failures.count:
        text = f"{text}; {_failure_text(decision)}"
    if ready and ready >= minimum_nodes(seen.pool.spec):
        was_complete = _was_ready(seen)
        if was_complete:
            return PoolPhase.DEGRADED, PoolReason.REPLACING_NODES, text
        growing = decision.wanted > seen.pool.spec.nodes.desired
        return PoolPhase.READY, PoolReason.SCALING_UP if growing else PoolReason.MINIMUM_READY, text
    if decision.failures.count and not any(node.making for node in seen.nodes):
        return PoolPhase.PENDING, _pool_reason(decision.failures.reason), text
    making = [node.phase for node in seen.nodes if node.making]
    step = next((_STEP[phase] for phase in _ORDER if phase in making), PoolReason.ACCEPTED)
    if making and set(making) == {NodePhase.PENDING}:
        step = _awaits(seen) or step
    return PoolPhase.PROVISIONING, step, text


def _awaits(seen: Observation) -> PoolReason | None:
    """Why no node of the pool has anything to ask for, by the lowest rank; None while that is looked for."""
    waiting = sorted((node.rank, node.reason) for node in seen.nodes if node.making)
    words = [reason for _, reason in waiting if reason not in ("", PoolReason.ACCEPTED)]
    return PoolReason(words[0]) if words and words[0] in set(PoolReason) else None


def _was_ready(seen: Observation) -> bool:
    return any((node.failed and node.ready_time) or node.leaving for node in seen.nodes) or (
        seen.pool.status.phase == PoolPhase.DEGRADED
    )


def _progress(seen: Observation) -> str:
    """What the nodes that are not ready are doing, the same things said once."""
    doing: dict[str, list[NodeView]] = {}
    for node in sorted(seen.nodes, key=lambda n: n.rank):
        if node.making:
            doing.setdefault(node.message or node.phase.lower(), []).append(node)
    parts = []
    for what, nodes in list(doing.items())[:3]:
        ranks = ", ".join(str(node.rank) for node in nodes[:4]) + (", …" if len(nodes) > 4 else "")
        parts.append(f"rank {ranks}: {what}")
    return "; ".join(parts)


def _failure_text(decision: Decision) -> str:
    failures = decision.failures
    times = "" if failures.count == 1 else f" ({failures.count} times in a row)"
    return f"a node failed{times}: {failures.message or failures.reason}"


def _pool_reason(reason: str) -> PoolReason:
    if reason == NodeReason.UNHEALTHY:
        return PoolReason.NODES_UNHEALTHY
    try:
        return PoolReason(reason)
    except ValueError:
        return PoolReason.REPLACING_NODES


def _with_remedy(reason: PoolReason, message: str) -> str:
    remedy = next_step(reason)
    if not remedy or remedy.startswith("Nothing to do"):
        return message
    return f"{message.rstrip('.')}. {remedy}"


def _hardware(seen: Observation) -> str:
    candidate = seen.pool.spec.candidates[0]
    accelerator = candidate.accelerator
    if accelerator is None:
        return clip(candidate.provider, 128)
    return clip(f"{accelerator.count}x{accelerator.name} {candidate.provider}", 128)


def _over_budget(seen: Observation) -> str:
    """Which budget has no money for a machine that is wanted, with figures; empty if none refuses one."""
    if seen.balance.stop is not None:
        return seen.balance.stop.message
    refused = (
        node.message for node in seen.nodes if node.making and node.reason == NodeReason.BUDGET_EXCEEDED
    )
    return next(refused, "")


def _cost(seen: Observation, now: datetime) -> dict[str, Any]:
    """What the pool costs, if that is to be written now."""
    balance, stop = seen.balance, seen.balance.stop
    if not is_cost_due(seen, now):
        return {}
    stopped = None
    if stop is not None:
        stopped = {
            "scope": str(stop.scope),
            "limit": f"{stop.limit:f}",
            "period": stop.period or None,
            "message": clip(stop.message),
        }
    cost = {
        "hourly": f"{balance.hourly:f}",
        "accrued": f"{balance.accrued:f}",
        "onDemandHourly": f"{balance.on_demand_hourly:f}",
        "saved": f"{balance.saved:f}",
        "time": timestamp(now),
        "budgetPercent": balance.percent or None,
        "stopped": stopped,
    }
    return {"cost": cost}


def is_cost_due(seen: Observation, now: datetime) -> bool:
    """Whether the cost is to be written: when prices, machines or a budget's state have changed, and of what
    only grows with the time once a minute."""
    written, balance = seen.pool.status.cost, seen.balance
    if written is None or written.time is None:
        return True
    limit = written.stopped.limit if written.stopped else None
    said = (written.hourly, written.on_demand_hourly, written.budget_percent or 0, limit)
    stop = balance.stop.limit if balance.stop else None
    if said != (balance.hourly, balance.on_demand_hourly, balance.percent, stop):
        return True
    late = (now - written.time).total_seconds() >= WRITE_SECONDS
    return written.accrued != balance.accrued and (late or not balance.hourly)


def _cost_shown(seen: Observation, now: datetime) -> dict[str, Any]:
    """The texts for columns, as old as the cost that is written."""
    if not is_cost_due(seen, now):
        return {}
    budget = seen.pool.spec.budget
    spent = f"{seen.balance.accrued:.2f}"
    if budget is not None and budget.max_total is not None:
        spent = f"{spent}/{budget.max_total:.2f}"
    return {"hourly": f"{seen.balance.hourly:.2f}", "spent": spent}


def dead_man_switch(seen: Observation) -> tuple[PoolReason, str]:
    """Whether the pool's machines end, and cost nothing any more, without an operator; and what does it if
    not."""
    ttl = seen.pool.spec.lifetime.ttl_seconds
    if ttl == 0:
        return (
            PoolReason.SWITCH_OFF,
            "spec.lifetime.ttlSeconds is 0: machines wait for their operator for ever",
        )
    billed = sorted({node.billed_when_off for node in seen.nodes if node.billed_when_off})
    if billed:
        text = (
            f"machines at {', '.join(billed)} are billed until the operator ends them, also when powered off"
        )
        return PoolReason.POWER_OFF_BILLED, text
    return PoolReason.SWITCH_SET, f"machines power themselves off after {ttl} s without their operator"


def _conditions(seen: Observation, decision: Decision, state: State, now: datetime) -> list[dict[str, Any]]:
    phase, reason, message = state
    pool = seen.pool
    reasons = [*(node.reason for node in seen.nodes if node.making), decision.failures.reason]
    bad_credentials = next((reason for reason in reasons if reason in CURABLE), None)
    ignored = ignored_fields(pool)
    broke = _over_budget(seen)
    switch, switch_words = dead_man_switch(seen)
    holds = {
        ConditionType.READY: is_usable(seen, decision),
        ConditionType.PROVISIONING: any(node.making for node in seen.nodes),
        ConditionType.CREDENTIALS_VALID: not bad_credentials,
        ConditionType.SUSPENDED: phase is PoolPhase.SUSPENDED and not seen.nodes,
        ConditionType.STALLED: phase is PoolPhase.STALLED,
        ConditionType.UNSUPPORTED: bool(ignored),
        ConditionType.DELETING: phase is PoolPhase.DELETING,
        ConditionType.BUDGET_EXCEEDED: bool(broke),
        ConditionType.DEAD_MAN_SWITCH: switch is PoolReason.SWITCH_SET,
    }
    made = []
    for type_ in POOL_CONDITIONS:
        status = "True" if holds[type_] else "False"
        why = str(reason)
        if type_ is ConditionType.CREDENTIALS_VALID:
            why = bad_credentials or PoolReason.CREDENTIALS_ACCEPTED
        elif type_ is ConditionType.UNSUPPORTED and ignored:
            why = PoolReason.FIELDS_IGNORED
        elif type_ is ConditionType.BUDGET_EXCEEDED:
            why = PoolReason.BUDGET_EXCEEDED if broke else PoolReason.WITHIN_BUDGET
        elif type_ is ConditionType.DEAD_MAN_SWITCH:
            why = switch
        before = condition(pool.status.conditions, type_)
        same = before is not None and before.status == status and before.last_transition_time is not None
        since = before.last_transition_time if same and before else now
        entry = {
            "type": str(type_),
            "status": status,
            "reason": str(why),
            "observedGeneration": pool.metadata.generation,
            "lastTransitionTime": timestamp(since or now),
        }
        if type_ is ConditionType.READY:
            entry["message"] = clip(message, 1024)
        elif type_ is ConditionType.UNSUPPORTED and ignored:
            text = f"this version does not act on {', '.join(ignored)}"
            entry["message"] = clip(_with_remedy(PoolReason.FIELDS_IGNORED, text), 1024)
        elif type_ is ConditionType.BUDGET_EXCEEDED and broke:
            entry["message"] = clip(_with_remedy(PoolReason.BUDGET_EXCEEDED, broke), 1024)
        elif type_ is ConditionType.DEAD_MAN_SWITCH:
            entry["message"] = clip(_with_remedy(switch, switch_words), 1024)
        made.append(entry)
    return made
