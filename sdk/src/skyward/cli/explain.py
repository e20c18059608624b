"""Why something stands where it stands, from the objects alone: what it waits for, since when, what to do.

Pure: objects as the API server has them in, an `Explanation` out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skyward.contract.reasons import NodePhase, TaskPhase, next_step

type Object = Mapping[str, Any]

_WAITING_FOR = {
    "AwaitingNodes": "a node of its pool that is ready",
    "Queued": "a free slot on a node of its pool",
    "AwaitingPayload": "its payload, from the program that made it",
    "AwaitingCalls": "calls, from the program that made it",
    "AwaitingCaller": "the program that sends its calls to connect again",
    "AwaitingStorage": "room for a result",
    "PoolNotFound": "its pool to be made",
    "PoolStalled": "its pool to be corrected",
    "PoolSuspended": "its pool to go on",
    "Suspended": "spec.suspend to be set to false",
    "BudgetExceeded": "a higher budget",
    "AwaitingBudget": "money that is set aside for other machines to come free, or a higher budget",
    "BudgetUnreadable": "a budget that can be read",
    "Retrying": "the pause before the next attempt, then a free slot",
    "InsufficientCapacity": "the provider to have such a machine",
    "QuotaExceeded": "a higher quota, or the end of a machine that uses it",
    "PriceCapExceeded": "a lower price, or a higher maxHourlyPrice",
    "PriceUnknown": "a price",
    "CredentialsNotFound": "the Secret with the credentials",
    "InvalidCredentials": "valid credentials",
    "ProviderUnavailable": "the provider to answer",
    "RateLimited": "the pause that the provider asks for",
    "UnknownOutcome": "the provider to show whether it made the machine",
    "IntentRecorded": "the provider to take the order",
    "Launching": "the provider to start the machine",
    "Launched": "the machine's address",
    "Connecting": "the machine's SSH server",
    "Bootstrapping": "the installation of the image",
    "AgentStarting": "the agent",
    "Reconnecting": "the connection to the node",
    "Accepted": "the operator's first step",
    "ReplacingNodes": "the nodes that replace those that were lost",
    "MinimumReady": "the nodes that are still being made",
    "ScalingUp": "the nodes that are being made",
    "ScalingDown": "idle nodes to be given back",
    "NodesUnhealthy": "somebody to find out why so many nodes are bad",
    "Interrupted": "running calls to end before the machine is taken",
    "Unhealthy": "running calls to end",
    "Draining": "running calls to end",
    "Terminating": "the provider to prove that the machine is gone",
    "Deleting": "the provider to prove that the last machine is gone",
    "AwaitingTasks": "a task",
    "NoNodesWanted": "a number of nodes",
}
"""What is awaited while a reason holds."""
_FROM_POOL = ("AwaitingNodes", "Queued", "PoolStalled", "PoolSuspended", "Retrying")
"""Reasons of tasks that their pool explains."""
_NOTHING = "Nothing to do: "


@dataclass(frozen=True, slots=True)
class Explanation:
    """One object's state, and of what it depends on, `beneath`."""

    subject: str
    phase: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    waits_for: str = ""
    next_try: datetime | None = None
    to_do: str = ""
    tried: Sequence[Object] = ()
    beneath: tuple["Explanation", ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON; what is not known is left out."""
        fields = {
            "subject": self.subject,
            "phase": self.phase,
            "reason": self.reason,
            "message": self.message,
            "since": self.since.isoformat() if self.since else "",
            "waitsFor": self.waits_for,
            "nextTryTime": self.next_try.isoformat() if self.next_try else "",
            "toDo": self.to_do,
            "offersTried": [dict(each) for each in self.tried],
            "beneath": [each.document() for each in self.beneath],
        }
        return {name: value for name, value in fields.items() if value}


def explain_pool(pool: Object, nodes: Iterable[Object] = ()) -> Explanation:
    """A pool, and those of its nodes that are not ready."""
    status, spec = pool.get("status") or {}, pool.get("spec") or {}
    name = f"pool {pool['metadata']['name']}"
    if not status.get("phase"):
        return _unseen(name, pool)
    waiting = [explain_node(node) for node in nodes if _phase(node) != NodePhase.READY]
    phase, reason = str(status["phase"]), str(status.get("reason") or "")
    stalled = phase == "Stalled"
    return Explanation(
        name,
        phase,
        reason,
        _without(status.get("message"), reason),
        _since(status, "Stalled" if stalled else "Ready"),
        "" if _is_still(phase, reason, spec) else _pool_waits(phase, reason),
        _time(status.get("nextTryTime")),
        _to_do(reason),
        status.get("offersTried") or (),
        tuple(waiting),
    )


def explain_node(node: Object, pool: Object | None = None) -> Explanation:
    """A node; with its pool also what was asked for, and when it asks again."""
    status = node.get("status") or {}
    name = f"node {node['metadata']['name']}"
    if not status.get("phase"):
        return _unseen(name, node)
    phase, reason = str(status["phase"]), str(status.get("reason") or "")
    of_pool = (pool or {}).get("status") or {}
    buys = phase in (NodePhase.PENDING, NodePhase.LAUNCHING)
    bootstrap = status.get("bootstrap") or {}
    message = _without(status.get("message"), reason)
    if phase == NodePhase.BOOTSTRAPPING and bootstrap.get("step"):
        message = ": ".join(word for word in (bootstrap["step"], bootstrap.get("lastLine")) if word)
    if phase == NodePhase.LAUNCHING and not message:
        message = _offer_words((status.get("launch") or {}).get("offer") or {})
    ended = phase in (NodePhase.READY, NodePhase.FAILED, NodePhase.GONE)
    return Explanation(
        name,
        phase,
        reason,
        message,
        _last_change(status),
        "" if ended and reason != "Reconnecting" else _WAITING_FOR.get(reason, ""),
        _time(of_pool.get("nextTryTime")) if phase == NodePhase.PENDING else None,
        _to_do(reason),
        (of_pool.get("offersTried") or ()) if buys else (),
    )


def explain_task(
    task: Object, pool: Object | None, nodes: Iterable[Object] = (), others: Iterable[Object] = ()
) -> Explanation:
    """A task, with its pool beneath where that explains why it waits. `others` are the pool's other tasks."""
    status, spec = task.get("status") or {}, task.get("spec") or {}
    name, whose = f"task {task['metadata']['name']}", f"pool {spec['poolRef']['name']}"
    if pool is None and not TaskPhase(status.get("phase") or TaskPhase.QUEUED).is_final:
        text = f"there is no {whose} in its namespace"
        return _of_task(name, task, "PoolNotFound", text, ())
    if not status.get("phase"):
        beneath = () if pool is None else (explain_pool(pool, nodes),)
        return Explanation(**_fields(_unseen(name, task)), beneath=beneath)
    reason, message = str(status.get("reason") or ""), _without(status.get("message"), status.get("reason"))
    if spec.get("cancel") and not TaskPhase(status["phase"]).is_final:
        text = "its cancellation was asked for; calls on nodes are being stopped"
        return _of_task(name, task, reason, text, ())
    if reason == "Queued":
        message = "; ".join(filter(None, (message, _queue_words(pool, others))))
    error = status.get("error") or {}
    beneath = (explain_pool(pool, nodes),) if pool is not None and reason in _FROM_POOL else ()
    return _of_task(name, task, reason, message or str(error.get("message") or ""), beneath)


def _of_task(
    name: str, task: Object, reason: str, message: str, beneath: tuple[Explanation, ...]
) -> Explanation:
    status = task.get("status") or {}
    phase = str(status.get("phase") or TaskPhase.QUEUED)
    waits = "" if TaskPhase(phase).is_final else _WAITING_FOR.get(reason, "")
    return Explanation(
        name,
        phase,
        reason,
        message,
        _last_change(status) or _time(task["metadata"].get("creationTimestamp")),
        waits,
        to_do=_to_do(reason),
        beneath=beneath,
    )


def _queue_words(pool: Object | None, others: Iterable[Object]) -> str:
    """What takes the slots."""
    status = (pool or {}).get("status") or {}
    ready = (status.get("nodes") or {}).get("ready", 0)
    slots = ready * (((pool or {}).get("spec") or {}).get("worker") or {}).get("concurrency", 1)
    live = [other for other in others if not TaskPhase(_phase(other) or TaskPhase.QUEUED).is_final]
    running = sum(((other.get("status") or {}).get("counts") or {}).get("running", 0) for other in live)
    return (
        f"its pool has {ready} nodes ready with {slots} slots; other tasks of the pool that have not ended: "
        f"{len(live)}, with {running} calls running"
    )


def _unseen(name: str, obj: Object) -> Explanation:
    return Explanation(
        name,
        "Pending",
        message="no operator has seen it yet",
        since=_time(obj["metadata"].get("creationTimestamp")),
        waits_for="the operator",
        to_do="Check that the operator runs; of the local control plane `skyward local status` says so.",
    )


def _fields(explanation: Explanation) -> dict[str, Any]:
    names = ("subject", "phase", "reason", "message", "since", "waits_for", "to_do")
    return {name: getattr(explanation, name) for name in names}


def _pool_waits(phase: str, reason: str) -> str:
    if phase == "Stalled":
        return (
            "a change of its spec"
            if reason not in ("PriceCapExceeded", "QuotaExceeded")
            else (f"{_WAITING_FOR[reason]}; it looks every 5 minutes with one node")
        )
    return _WAITING_FOR.get(reason, "")


def _is_still(phase: str, reason: str, spec: Object) -> bool:
    """Whether a pool has all that it wants."""
    return (phase == "Ready" and reason in ("AllNodesReady", "NodesOutdated")) or bool(
        phase == "Suspended" and reason == "Suspended" and spec.get("suspend")
    )


def _offer_words(offer: Object) -> str:
    words = (offer.get("provider"), offer.get("region"), offer.get("instanceType"), offer.get("market"))
    return " ".join(dict.fromkeys(str(word) for word in words if word))


def _phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


def _without(message: Any, reason: Any) -> str:
    """A message without the remedy that its reason brings, which stands apart."""
    text, remedy = str(message or ""), next_step(str(reason or ""))
    return text.replace(remedy, "").strip().rstrip(".") if remedy else text


def _to_do(reason: str) -> str:
    remedy = next_step(reason)
    return f"nothing; {remedy.removeprefix(_NOTHING)}" if remedy.startswith(_NOTHING) else remedy


def _since(status: Object, type_: str) -> datetime | None:
    """Since when a condition of that type is as it is."""
    conditions: Iterable[Object] = status.get("conditions") or ()
    times = (each.get("lastTransitionTime") for each in conditions if each.get("type") == type_)
    return _time(next(times, None))


def _last_change(status: Object) -> datetime | None:
    """When a condition last changed."""
    times = [_time(each.get("lastTransitionTime")) for each in status.get("conditions") or ()]
    return max((time for time in times if time is not None), default=None)


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
