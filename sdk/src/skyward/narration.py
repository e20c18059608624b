"""Pools, nodes and tasks in words: what a person reads while they wait. Pure functions of objects."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from skyward import errors
from skyward.contract.reasons import NodePhase, next_step
from skyward.errors import PoolStalled
from skyward.wire.envelopes import FailureReason

_BUDGET = {"BudgetExceeded", "PriceUnknown", "BudgetUnreadable"}
_BOOTSTRAP = {"BootstrapFailed", "BootstrapTimeout", "ImageRejected", "PackageNotFound", "PythonNotFound"}

_CENT = Decimal("0.01")

_OWN_FAILURES = frozenset(str(reason) for reason in FailureReason)
"""What ends an attempt without the loss of anything: the call itself failed."""


def pool_words(pool: Mapping[str, Any], waited: float) -> str:
    """How far a pool is."""
    status = pool.get("status") or {}
    if not status.get("phase"):
        late = " (is it running? `skyward local status`)" if waited > 15 else ""
        return f"waiting for the operator to take it up{late}"
    nodes = status.get("nodes") or {}
    wanted = status.get("desiredNodes", pool["spec"]["nodes"]["desired"])
    counts = f"{nodes.get('ready', 0)} of {wanted} nodes ready"
    if _is_well(status.get("reason")):
        return f"{status['phase']}: {counts}"
    message = str(status.get("message") or status.get("reason"))
    return f"{status['phase']}: {message if message.startswith(counts) else f'{counts}; {message}'}"


def node_words(node: Mapping[str, Any]) -> str:
    """How far a node is."""
    status = node.get("status") or {}
    phase = status.get("phase") or NodePhase.PENDING
    match phase:
        case NodePhase.BOOTSTRAPPING:
            bootstrap = status.get("bootstrap") or {}
            words = [bootstrap.get("step") or "", _clipped(bootstrap.get("lastLine") or "")]
            return ": ".join([phase, *(word for word in words if word)])
        case NodePhase.LAUNCHING:
            offer = (status.get("launch") or {}).get("offer") or {}
            words = [
                offer.get("provider"),
                offer.get("region"),
                offer.get("instanceType"),
                offer.get("market"),
            ]
            where = " ".join(dict.fromkeys(word for word in words if word))
            return f"{phase}: {where}" if where else phase
        case NodePhase.FAILED:
            return f"{phase}: {status.get('message') or status.get('reason') or ''}"
    reason = status.get("reason")
    return phase if _is_well(reason) else f"{phase}: {status.get('message') or reason}"


def task_words(task: Mapping[str, Any]) -> str:
    """How far a task is."""
    status = task.get("status") or {}
    phase = status.get("phase") or "Queued"
    counts = status.get("counts") or {}
    parts = [phase]
    if counts.get("total", 0) > 1:
        done = counts.get("succeeded", 0) + counts.get("failed", 0)
        parts.append(f"{done} of {counts['total']} calls done, {counts.get('running', 0)} running")
        if counts.get("failed"):
            parts.append(f"{counts['failed']} failed")
    elif phase == "Running" and status.get("node"):
        parts.append(f"on {status['node']}")
    waits = phase in ("Queued", "Recovering", "Suspended") or status.get("reason") == "AwaitingStorage"
    if waits and status.get("message"):
        parts.append(_without_remedy(str(status["message"]), status.get("reason")))
    return ": ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


def lost_attempts(task: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """In words, the attempts of a task that its status shows as lost with their node, by call and number."""
    status = task.get("status") or {}
    recent = (status.get("attempts") or {}).get("recent") or ()
    newest: dict[int, int] = {}
    for each in recent:
        newest[each["index"]] = max(each["attempt"], newest.get(each["index"], 0))
    words = {}
    for each in reversed(recent):  # the oldest first
        index, attempt = each["index"], each["attempt"]
        if each.get("cause") is None or each["cause"] in _OWN_FAILURES:
            continue
        again = newest[index] > attempt or status.get("phase") == "Succeeded"
        last = index + each.get("count", 1) - 1
        which, verb = (f"call {index}", "is") if last == index else (f"calls {index} to {last}", "are")
        words[index, attempt] = (
            f"⚠ attempt {attempt} of {which} was lost on node {each.get('rank', '?')} ({each['cause']})"
            f"{f'; the {which.split()[0]} {verb} tried again' if again else ''}"
        )
    return words


def stalled_error(pool: Mapping[str, Any]) -> PoolStalled | None:
    """The error for a pool that does not move before its spec changes; None while it does."""
    status = pool.get("status") or {}
    generation = pool["metadata"].get("generation", 0)
    stalled = condition(status.get("conditions") or (), "Stalled")
    if stalled.get("status") != "True" or stalled.get("observedGeneration", generation) < generation:
        return None
    failures = status.get("failures") or {}
    reason = stalled.get("reason") or status.get("reason") or "PoolStalled"
    if reason in _BUDGET:
        failures = {}  # of before: they are not what it waits for
    message = failures.get("message") or stalled.get("message") or status.get("message") or reason
    log = "".join(f"\n  | {line}" for line in (failures.get("log") or "").splitlines()[-12:])
    remedy = next_step(reason) or next_step(failures.get("reason"))
    if remedy and remedy in message:
        message = message.replace(remedy, "").rstrip()
    kind = PoolStalled
    if reason in _BUDGET:
        kind = errors.BudgetExceeded
    elif {reason, failures.get("reason")} & _BOOTSTRAP:
        kind = errors.BootstrapFailed
    name = pool["metadata"]["name"]
    return kind(f"pool {name} cannot become ready: {message}{log}", reason=reason, remedy=remedy or None)


def price_words(pool: Mapping[str, Any]) -> str:
    """What a pool costs by the hour; empty where it costs nothing."""
    cost = (pool.get("status") or {}).get("cost") or {}
    hourly, on_demand = _dollars(cost.get("hourly")), _dollars(cost.get("onDemandHourly"))
    if not hourly:
        return ""
    return f"${hourly:.2f}/h" + (f" (on demand ${on_demand:.2f}/h)" if on_demand > hourly else "")


def cost_words(cost: Mapping[str, Any]) -> str:
    """What a pool has cost, and what was saved."""
    accrued, saved = _dollars(cost.get("accrued")), _dollars(cost.get("saved"))
    return f"${accrued:.2f}" + (f" (${saved:.2f} saved against on-demand)" if saved >= _CENT else "")


def budget_words(pool: Mapping[str, Any]) -> str:
    """How much of its budget a pool has spent, in steps; empty below the first."""
    status, budget = pool.get("status") or {}, (pool["spec"].get("budget") or {}).get("maxTotal")
    cost = status.get("cost") or {}
    percent = int(cost.get("budgetPercent") or 0)
    if not percent:
        return ""
    of = f": ${_dollars(cost.get('accrued')):.2f} of ${_dollars(budget):.2f}" if budget else ""
    return f"⚠ {percent} % of the budget is spent{of}"


def _dollars(text: Any) -> Decimal:
    try:
        return Decimal(str(text or 0))
    except InvalidOperation:
        return Decimal(0)


def has_no_node(pool: Mapping[str, Any]) -> bool:
    """Whether no call of a pool can run now."""
    return not ((pool.get("status") or {}).get("nodes") or {}).get("ready")


def scaling_words(pool: Mapping[str, Any]) -> str:
    """The latest change of the number of nodes that its operator wants, and why; empty if there was none."""
    scaling = (pool.get("status") or {}).get("scaling") or {}
    return f"scales {scaling['message']}" if scaling.get("message") else ""


def ignored_words(pool: Mapping[str, Any]) -> str:
    """Which fields of a pool its operator does not act on; empty if there are none."""
    unsupported = condition((pool.get("status") or {}).get("conditions") or (), "Unsupported")
    return str(unsupported.get("message", "")) if unsupported.get("status") == "True" else ""


def billed_words(pool: Mapping[str, Any]) -> str:
    """What a pool says of machines that cost money also when they are powered off; empty if none do."""
    switch = condition((pool.get("status") or {}).get("conditions") or (), "DeadManSwitch")
    return str(switch.get("message", "")) if switch.get("reason") == "PowerOffBilled" else ""


def condition(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any]:
    """The condition of that type; empty if there is none."""
    return next((each for each in conditions if each.get("type") == type_), {})


def _without_remedy(message: str, reason: str | None) -> str:
    return message.replace(next_step(reason), "").strip().rstrip(".") if next_step(reason) else message


def _is_well(reason: str | None) -> bool:
    return not reason or next_step(reason).startswith("Nothing to do")


def _clipped(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
