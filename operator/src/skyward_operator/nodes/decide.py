"""What to do about a node next. Pure: no provider, no connection, no clock.

A node goes Pending → Launching → Connecting → Bootstrapping → Ready. On the way down it goes Draining →
Terminating → Gone when it was deleted or leaves by itself (`interruption`), or Failed when it did not work; a
failed node's machine is released at once, and the pool decides what follows. Three rules stand above all:

- nothing is bought before the finalizer is on the node and the intent is in its status;
- when it is not known whether something was bought, it is found out before anything else;
- the finalizer goes only after the provider proved that the machine is gone.

Time-outs count from the last progress, never from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.contract.names import FINALIZER
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.actions import (
    Admit,
    Again,
    Avoid,
    CloseSession,
    Create,
    Examine,
    Guard,
    LookUp,
    Lose,
    Pin,
    RecordIntent,
    StartSession,
    Write,
)
from skyward_operator.nodes.interruption import (
    announced,
    avoid,
    cause,
    gone_message,
    is_leaving,
    leave_on_notice,
    leave_unwell,
    lose,
    lose_machine,
    retreat,
)
from skyward_operator.nodes.observation import CREDENTIALS, Absent, Stage
from skyward_operator.nodes.wind_down import end, gone, poll, release
from skyward_operator.placement.words import summary

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.actions import Action
    from skyward_operator.nodes.observation import Observation, Refusal, SessionView

SHOW_LOST_AFTER = 3.0
"""Seconds until a broken link is written down; most are back before that."""
HEARTBEAT = 60.0
HEARD_EVERY = 5.0
"""An agent answers a ping so often: there is no news of it before that."""
SPARED_AGAIN = 5.0
LINE_EVERY = 5.0
LASTING = (
    NodeReason.PRICE_CAP_EXCEEDED,
    NodeReason.QUOTA_EXCEEDED,
    NodeReason.AWAITING_BUDGET,
    NodeReason.BUDGET_EXCEEDED,
    NodeReason.PRICE_UNKNOWN,
    NodeReason.BUDGET_UNREADABLE,
)
"""Another node would wait for the same, and failures of nodes stall their pool: these are waited for without
an end, unless they are refusals for good."""
BOOTED_EVERY = 2.0
"""The longest pause between two looks at a machine that boots: it costs money, and nobody uses it yet."""
TROUBLED_AGAIN = 5.0
SHOW_STEP_AFTER = 2.0
"""Seconds until a step of the bootstrap is written down. Where the image is there already, all of them are
over before that, and each word would be a write for each node."""


def decide(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """The next bounded step."""
    if node.metadata.is_deleted:
        return end(node, seen, now)
    match node.status.phase:
        case NodePhase.LAUNCHING:
            return launch(node, seen, now)
        case NodePhase.CONNECTING | NodePhase.BOOTSTRAPPING:
            return prepare(node, seen, now)
        case NodePhase.READY:
            return serve(node, seen, now)
        case NodePhase.FAILED:
            return release(node, seen, now)
        case NodePhase.DRAINING if is_leaving(node):
            return retreat(node, seen, now)
        case NodePhase.DRAINING | NodePhase.TERMINATING | NodePhase.GONE:
            return end(node, seen, now)
        case _:
            return choose(node, seen, now)


# Pending and Launching: buy one machine


def choose(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Record the intent to buy the best offer, or wait for one as long as a machine may take.

    A node fails at once only for what the same spec would meet again. Attempts are counted on: a token that
    was refused once is not used again.
    """
    if FINALIZER not in node.metadata.finalizers:
        return [Guard(), Again(0)]
    if seen.offers is None:
        return [Again(0)]
    if seen.offers.found:
        before = node.status.launch.attempt if node.status.launch else None
        return [RecordIntent(seen.offers.found[0], (before or 0) + 1), Again(0)]
    refusals = seen.offers.refusals
    message = summary(refusals) or "no candidate has an offer that fits"
    waits = next((refusal for refusal in refusals if not refusal.permanent), None)
    if waits is None:
        reason = refusals[0].reason if refusals else NodeReason.NO_MATCHING_OFFER
        return [Write(NodePhase.FAILED, reason, message)]
    began, limit = node.metadata.creation_timestamp or now, node.spec.timeouts.provision_seconds
    left = limit - (now - began).total_seconds()
    if left <= 0 and waits.reason not in LASTING:
        return [Write(NodePhase.FAILED, waits.reason, f"no machine within {limit} s: {message}")]
    return [Write(NodePhase.PENDING, waits.reason, message), Again(seen.offers.again)]


def launch(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Have the recorded intent become a machine, or find that it did."""
    record = node.status.launch
    if record is None or record.request_time is None:
        return choose(node, seen, now)
    age = (now - record.request_time).total_seconds()
    match record.outcome:
        case "Pending" | "Unknown" | None:
            if age > node.spec.timeouts.provision_seconds:
                return fail(NodeReason.PROVISION_TIMEOUT, f"no answer from the provider for {age:.0f} s")
            safe = seen.idempotent or seen.unasked
            return [Create() if safe else LookUp(), Again(poll(age))]
        case _:
            return choose(node, seen, now)


# Connecting and Bootstrapping: make the machine a node


def prepare(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Wait for the machine, connect to it, and follow its session until the agent answers."""
    if gone(seen.machine):
        return [*avoid(seen.machine), *fail(cause(node, seen.machine), gone_message(seen.machine))]
    if (notice := announced(seen)) is not None:
        text = f"the provider takes the machine back at {timestamp(notice[0])}, before it was ready"
        return [Avoid(), *fail(NodeReason.INTERRUPTED, text)]
    if node.status.address is None:
        return locate(node, seen, now)
    session = seen.session
    if session is None:
        return [StartSession(resume=False), Again(1)]
    if session.failure is not None:
        return fail_session(session)
    match session.stage:
        case Stage.AWAITING_PIN:
            return [Pin(session.host_key)] if session.host_key else [Again(1)]
        case Stage.LINKED:
            return become_ready(session, now)
        case Stage.BOOTSTRAPPING:
            return follow_bootstrap(node, session, now)
        case _:
            return follow_connection(node, session, now)


def locate(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Write down where the machine is, with its host key if the provider knows it."""
    machine = seen.machine
    record = node.status.launch
    age = (now - record.request_time).total_seconds() if record and record.request_time else 0.0
    if machine is None or isinstance(machine, Absent) or machine.address is None:
        if age > node.spec.timeouts.provision_seconds:
            why = f": {seen.trouble.message}" if seen.trouble else ""
            return fail(NodeReason.PROVISION_TIMEOUT, f"the machine has no address after {age:.0f} s{why}")
        if seen.trouble is not None:
            return [*complaint(node, seen.trouble), Again(TROUBLED_AGAIN)]
        return [*complaint(node, None), Again(min(BOOTED_EVERY, poll(age)))]
    where = machine.address
    fields: dict[str, Any] = {
        "address": {"host": where.host, "port": where.port, "user": where.user},
        "display": {"address": f"{where.user}@{where.host}:{where.port}"},
    }
    if machine.host_key and node.status.host_key is None:
        fields["hostKey"] = machine.host_key
    return [Write(NodePhase.CONNECTING, NodeReason.CONNECTING, fields=fields), Again(0)]


def complaint(node: ComputeNode, trouble: Refusal | None) -> list[Action]:
    """Say that the credentials are gone or refused, as long as they are; what passes by itself is logged."""
    if trouble is not None and trouble.reason in CREDENTIALS:
        return [Write(NodePhase.CONNECTING, trouble.reason, trouble.message)]
    if trouble is None and node.status.reason in CREDENTIALS:
        return [Write(NodePhase.CONNECTING, NodeReason.LAUNCHED)]
    return []


def follow_connection(node: ComputeNode, session: SessionView, now: datetime) -> list[Action]:
    """Wait until SSH answers, but not for ever."""
    quiet = (now - session.progress).total_seconds()
    limit = node.spec.timeouts.ssh_seconds
    if quiet > limit:
        return fail(NodeReason.CONNECT_TIMEOUT, f"SSH does not answer for {quiet:.0f} s: {session.trouble}")
    return [
        Write(NodePhase.CONNECTING, NodeReason.CONNECTING, session.trouble),
        Again(min(2.0, limit - quiet + 0.1)),
    ]


def follow_bootstrap(node: ComputeNode, session: SessionView, now: datetime) -> list[Action]:
    """Show how far the installation is, if it takes long enough for anybody to ask."""
    quiet = (now - session.progress).total_seconds()
    limit = node.spec.timeouts.bootstrap_seconds
    if quiet > limit:
        text = f"step {session.step} said nothing for {quiet:.0f} s; its last line: {session.last_line}"
        return fail(NodeReason.BOOTSTRAP_TIMEOUT, text)
    young = SHOW_STEP_AFTER - (now - (session.step_began or session.started)).total_seconds()
    if young > 0:
        return [Again(young)]
    shown = node.status.bootstrap
    began = shown.start_time if shown and shown.start_time else now
    progress: dict[str, Any] = {"step": session.step, "startTime": timestamp(began)}
    if session.last_line:
        progress["lastLine"] = session.last_line
    write = Write(NodePhase.BOOTSTRAPPING, NodeReason.BOOTSTRAPPING, fields={"bootstrap": progress})
    return [write, Again(LINE_EVERY)]


def become_ready(session: SessionView, now: datetime) -> list[Action]:
    """Write that the node is ready, then let it take calls: a restart must know whom to wait for."""
    fields = agent_fields(session) | {"readyTime": timestamp(now), "heartbeatTime": timestamp(now)}
    return [Write(NodePhase.READY, NodeReason.AGENT_READY, fields=fields), Admit(), Again(HEARTBEAT)]


def agent_fields(session: SessionView) -> dict[str, Any]:
    """What the status says about the agent, and about the switch that ends the machine without an
    operator."""
    agent, switch = session.agent, session.switch
    fields: dict[str, Any] = {}
    if agent is not None:
        about = {"bootId": agent.boot_id, "python": agent.python, "version": agent.version}
        fields |= {"agent": about, "slots": agent.slots}
    if switch is not None:
        fields["deadMan"] = {"keeper": switch.keeper, "ttlSeconds": switch.ttl}
    return fields


# Ready: keep it


def serve(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Keep the link; give the node up when its machine is gone or silent for too long."""
    session = seen.session
    if gone(seen.machine):
        return lose_machine(node, seen.machine)
    if (notice := announced(seen)) is not None:
        return leave_on_notice(node, *notice, now)
    if session is None:
        return [StartSession(resume=True), Again(1)]
    if session.failure is not None:
        return [Lose(session.failure.reason), *fail_session(session)]
    if session.stage is Stage.LINKED and session.ill:
        return keep_unwell(session.ill, seen) if seen.spared else leave_unwell(session.ill)
    if session.stage is Stage.LINKED:
        return [*examine(session, seen), *beat(node, session)]
    silent = (now - (session.lost or session.started)).total_seconds()
    busy = session.stage is Stage.BOOTSTRAPPING
    quiet = (now - session.progress).total_seconds()
    if silent > seen.patience and not (busy and quiet < node.spec.timeouts.bootstrap_seconds):
        if seen.spared:
            return keep_unwell(f"no sign of the agent for over {seen.patience:.0f} s", seen)
        return lose(NodeReason.HEARTBEAT_LOST, f"no sign of the agent for {silent:.0f} s: {session.trouble}")
    if silent < SHOW_LOST_AFTER:
        return [Again(SHOW_LOST_AFTER - silent)]
    if not session.trouble:
        return [Again(2)]  # after a restart hundreds wait for their turn to be connected to: that is no news
    return [Write(NodePhase.READY, NodeReason.RECONNECTING, session.trouble), Again(2)]


def examine(session: SessionView, seen: Observation) -> list[Action]:
    """Have the agent make the checks that the pool asks for now, unless it does."""
    return [Examine(seen.checks)] if session.watch != seen.checks.digest else []


def keep_unwell(ill: str, seen: Observation) -> list[Action]:
    """Too many are bad at once for this node to be the cause: it stays, and says so."""
    write = Write(NodePhase.READY, NodeReason.UNHEALTHY, f"{ill}; {seen.spared}")
    again = examine(seen.session, seen) if seen.session is not None and seen.session.ill else []
    return [*again, write, Again(SPARED_AGAIN)]


def beat(node: ComputeNode, session: SessionView) -> list[Action]:
    """Write the heartbeat at most once a minute, and what changed about the agent at once."""
    written, heard = node.status.heartbeat_time, session.heard
    left = HEARTBEAT - ((heard or written) - written).total_seconds() if written is not None else 0.0
    fields = agent_fields(session)
    if left <= 0 and heard is not None:
        fields["heartbeatTime"] = timestamp(heard)
    actions: list[Action] = [Write(NodePhase.READY, NodeReason.AGENT_READY, fields=fields)]
    if not session.admitted:
        actions.append(Admit())
    return [*actions, Again(max(left, HEARD_EVERY) if left > 0 else HEARTBEAT)]


# Small judgements


def fail(reason: NodeReason, message: str) -> list[Action]:
    """Give a node up that never took calls."""
    return [Write(NodePhase.FAILED, reason, message), CloseSession(), Again(0)]


def fail_session(session: SessionView) -> list[Action]:
    """Give a node up for the reason that its session found."""
    failure = session.failure
    if failure is None:
        return []
    fields: dict[str, Any] = {"bootstrap": {"log": failure.log}} if failure.log else {}
    write = Write(NodePhase.FAILED, failure.reason, failure.message, fields)
    return [write, CloseSession(), Again(0)]
