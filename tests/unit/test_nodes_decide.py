"""Tables of what is done about a node next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from skyward.contract.names import FINALIZER
from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.actions import (
    Action,
    Admit,
    Again,
    CleanUp,
    CloseSession,
    Create,
    Drain,
    Guard,
    LookUp,
    Lose,
    Pin,
    RecordIntent,
    RemoveFinalizer,
    StartSession,
    Terminate,
    Write,
)
from skyward_operator.nodes.decide import HEARD_EVERY, decide
from skyward_operator.nodes.observation import (
    ABSENT,
    PATIENCE,
    Agent,
    Failure,
    Observation,
    Offers,
    Refusal,
    SessionView,
    Stage,
)
from skyward_operator.nodes.wind_down import DRAIN_GRACE
from skyward_operator.providers.contract import Address, Machine, MachineState, Offer

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
OFFER = Offer("local", "local", "local", "on-demand", Decimal(0), Decimal(0), candidate="main")
ADDRESS = {"host": "127.0.0.1", "port": 2222, "user": "root"}
HOST_KEY = "ssh-ed25519 AAAA"
LAUNCH = {
    "attempt": 1,
    "candidate": "main",
    "token": "t",
    "requestTime": timestamp(NOW),
    "outcome": "Pending",
}
LAUNCHED: dict[str, Any] = {
    "launch": {**LAUNCH, "outcome": "Launched"},
    "providerId": "local-1",
    "billing": {"startTime": timestamp(NOW)},
}
CONNECTING: dict[str, Any] = {**LAUNCHED, "phase": "Connecting", "address": ADDRESS, "hostKey": HOST_KEY}
READY: dict[str, Any] = {**CONNECTING, "phase": "Ready", "heartbeatTime": timestamp(NOW)}
AGENT = Agent("boot", "3.13.0", "v", 2)


def node(
    status: dict[str, Any] | None = None, *, finalizer: bool = True, deleted: bool = False, **more: Any
) -> ComputeNode:
    """A node object with this status."""
    metadata: dict[str, Any] = {"name": "p-0-abc", "namespace": "ns", "uid": "u", "resourceVersion": "5"}
    metadata |= more
    if finalizer:
        metadata["finalizers"] = [FINALIZER]
    if deleted:
        metadata["deletionTimestamp"] = timestamp(NOW)
    spec = {
        "poolRef": {"name": "p", "uid": "pu"},
        "rank": 0,
        "incarnation": 0,
        "candidates": [{"name": "main", "provider": "local"}],
        "image": {"python": "3.13"},
        "worker": {},
        "timeouts": {"provisionSeconds": 100, "sshSeconds": 50, "bootstrapSeconds": 200},
        "templateHash": "ab",
    }
    return ComputeNode.read({"metadata": metadata, "spec": spec, "status": status or {}})


def view(stage: Stage, **fields: Any) -> SessionView:
    """A session that made progress just now."""
    return replace(SessionView(stage, started=NOW, progress=NOW), **fields)


def machine(state: MachineState = MachineState.RUNNING, **fields: Any) -> Machine:
    """A machine with an address."""
    where = Address("127.0.0.1", 2222, "root")
    return replace(Machine("local-1", "t", {}, state, where, HOST_KEY), **fields)


def kinds(actions: list[Action]) -> list[type]:
    """Which actions, without when to look again."""
    return [type(action) for action in actions if not isinstance(action, Again)]


def written(actions: list[Action]) -> Write:
    """The one status that is written."""
    (write,) = [action for action in actions if isinstance(action, Write)]
    return write


def step(status: dict[str, Any], seen: Observation, later: float = 0.0, **of_node: Any) -> list[Action]:
    """The decision some seconds later."""
    return decide(node(status, **of_node), seen, NOW + timedelta(seconds=later))


# Nothing is bought before finalizer and intent are durable


def test_a_new_node_gets_its_finalizer_before_anything_is_bought() -> None:
    seen = Observation(offers=Offers((OFFER,)))
    assert kinds(decide(node(finalizer=False), seen, NOW)) == [Guard]


def test_a_new_node_records_its_intent_and_buys_nothing_yet() -> None:
    assert step({}, Observation(offers=Offers((OFFER,))))[0] == RecordIntent(OFFER, 1)


def test_a_node_without_offers_waits_and_says_why_when_that_may_pass() -> None:
    refusal = Refusal(NodeReason.INSUFFICIENT_CAPACITY, "no H100 left", permanent=False)
    write = written(step({}, Observation(offers=Offers((), (refusal,)))))
    assert (write.phase, write.reason) == (NodePhase.PENDING, NodeReason.INSUFFICIENT_CAPACITY)
    assert write.message == "no H100 left"


def test_a_node_whose_request_is_wrong_fails_at_once() -> None:
    refusal = Refusal(NodeReason.REQUEST_REJECTED, "accelerator: none here", permanent=True)
    write = written(step({}, Observation(offers=Offers((), (refusal,)))))
    assert (write.phase, write.reason) == (NodePhase.FAILED, NodeReason.REQUEST_REJECTED)


LAUNCHING = {"phase": "Launching", "launch": LAUNCH}


@pytest.mark.parametrize(
    ("outcome", "idempotent", "unasked", "action"),
    [
        ("Pending", True, False, Create),
        ("Pending", False, True, Create),
        ("Pending", False, False, LookUp),
        ("Unknown", True, False, Create),
        ("Unknown", False, False, LookUp),
    ],
)
def test_an_intent_is_acted_on_only_where_that_cannot_buy_twice(
    outcome: str, idempotent: bool, unasked: bool, action: type
) -> None:
    status = {**LAUNCHING, "launch": {**LAUNCH, "outcome": outcome}}
    assert kinds(step(status, Observation(idempotent=idempotent, unasked=unasked))) == [action]


def test_a_refused_offer_is_followed_by_the_next_one() -> None:
    status = {**LAUNCHING, "launch": {**LAUNCH, "outcome": "InsufficientCapacity"}}
    assert step(status, Observation(offers=Offers((OFFER,))))[0] == RecordIntent(OFFER, 2)


@pytest.mark.parametrize("phase", ["Launching", "Pending"])
def test_attempts_are_counted_on_whatever_was_waited_for(phase: str) -> None:
    """A token belongs to one attempt: one that was refused is never used again."""
    launch = {**LAUNCH, "outcome": "InsufficientCapacity", "attempt": 7}
    status = {"phase": phase, "launch": launch}
    assert step(status, Observation(offers=Offers((OFFER,))))[0] == RecordIntent(OFFER, 8)


NONE_LEFT = Refusal(NodeReason.INSUFFICIENT_CAPACITY, "none left", permanent=False)
WRONG = Refusal(NodeReason.REQUEST_REJECTED, "accelerator: none here", permanent=True)


def test_a_node_whose_every_offer_is_refused_waits_as_long_as_a_machine_may_take() -> None:
    launch = {**LAUNCH, "outcome": "InsufficientCapacity"}
    status = {**LAUNCHING, "launch": launch}
    seen = Observation(offers=Offers((), (NONE_LEFT,), again=42.0))
    made: dict[str, Any] = {"creationTimestamp": timestamp(NOW)}
    early = decide(node(status, **made), seen, NOW + timedelta(seconds=50))
    assert (written(early).phase, written(early).reason) == (NodePhase.PENDING, NONE_LEFT.reason)
    assert Again(42.0) in early
    late = written(decide(node(status, **made), seen, NOW + timedelta(seconds=101)))
    assert (late.phase, late.reason) == (NodePhase.FAILED, NONE_LEFT.reason)
    assert late.message == "no machine within 100 s: none left"


@pytest.mark.parametrize(
    "reason", [NodeReason.AWAITING_BUDGET, NodeReason.BUDGET_EXCEEDED, NodeReason.PRICE_CAP_EXCEEDED]
)
def test_a_node_waits_for_a_budget_or_a_price_without_an_end(reason: NodeReason) -> None:
    """Another node would wait for the same, and a pool that counts failures would stall."""
    broke = Refusal(reason, "no money", permanent=False)
    made = node({}, creationTimestamp=timestamp(NOW))
    late = written(decide(made, Observation(offers=Offers((), (broke,))), NOW + timedelta(days=9)))
    assert (late.phase, late.reason) == (NodePhase.PENDING, reason)


def test_a_node_waits_where_only_some_of_its_candidates_are_wrong() -> None:
    write = written(step({}, Observation(offers=Offers((), (WRONG, NONE_LEFT)))))
    assert (write.phase, write.reason) == (NodePhase.PENDING, NONE_LEFT.reason)
    assert write.message == "accelerator: none here; none left"


def test_a_message_tells_a_few_refusals_and_counts_the_rest() -> None:
    many = tuple(replace(NONE_LEFT, message=f"none in region {number}") for number in range(9))
    message = written(step({}, Observation(offers=Offers((), many)))).message
    assert message.startswith("none in region 0; none in region 1")
    assert message.endswith("; and 5 more")


def test_a_launch_without_answer_fails_after_its_time() -> None:
    assert kinds(step(LAUNCHING, Observation(idempotent=True), later=99)) == [Create]
    assert written(step(LAUNCHING, Observation(idempotent=True), 101)).reason == NodeReason.PROVISION_TIMEOUT


# On the way to readiness


def test_the_host_key_of_the_provider_is_written_before_the_first_connection() -> None:
    actions = step({**LAUNCHED, "phase": "Connecting"}, Observation(machine=machine()))
    assert kinds(actions) == [Write]
    assert written(actions).fields["hostKey"] == HOST_KEY
    assert written(actions).fields["address"] == ADDRESS


def test_a_machine_without_address_is_awaited_then_given_up() -> None:
    pending = Observation(machine=machine(MachineState.PENDING, address=None))
    assert kinds(step({**LAUNCHED, "phase": "Connecting"}, pending, later=10)) == []
    late = written(step({**LAUNCHED, "phase": "Connecting"}, pending, later=101))
    assert (late.phase, late.reason) == (NodePhase.FAILED, NodeReason.PROVISION_TIMEOUT)


@pytest.mark.parametrize("seen", [ABSENT, machine(MachineState.GONE)])
@pytest.mark.parametrize("status", [CONNECTING, {**CONNECTING, "phase": "Bootstrapping"}, READY])
def test_a_machine_that_is_gone_ends_the_node_at_once(status: dict[str, Any], seen: Any) -> None:
    write = written(step(status, Observation(machine=seen, session=view(Stage.CONNECTING))))
    assert (write.phase, write.reason) == (NodePhase.FAILED, NodeReason.MACHINE_LOST)


def test_a_node_that_awaits_its_machine_says_that_its_credentials_are_gone_until_they_are_back() -> None:
    gone = Refusal(NodeReason.CREDENTIALS_NOT_FOUND, "Secret cloud does not exist", permanent=False)
    launched = {**LAUNCHED, "phase": "Connecting", "reason": "Launched"}
    write = written(step(launched, Observation(trouble=gone), later=10))
    assert (write.phase, write.reason, write.message) == (NodePhase.CONNECTING, gone.reason, gone.message)

    complaining = {**launched, "reason": "CredentialsNotFound", "message": gone.message}
    booting = Observation(machine=machine(MachineState.PENDING, address=None))
    assert written(step(complaining, booting, later=20)).reason is NodeReason.LAUNCHED
    assert kinds(step(launched, booting, later=20)) == []

    failed = written(step(complaining, Observation(trouble=gone), later=101))
    assert failed.reason is NodeReason.PROVISION_TIMEOUT
    assert failed.message == "the machine has no address after 101 s: Secret cloud does not exist"


def test_a_provider_that_is_down_for_a_moment_is_no_news_of_a_node() -> None:
    down = Refusal(NodeReason.PROVIDER_UNAVAILABLE, "503", permanent=False)
    launched = {**LAUNCHED, "phase": "Connecting", "reason": "Launched"}
    assert kinds(step(launched, Observation(trouble=down), later=10)) == []


def test_a_located_machine_is_connected_to() -> None:
    assert step(CONNECTING, Observation())[0] == StartSession(resume=False)


def test_a_host_key_seen_first_is_pinned() -> None:
    seen = Observation(session=view(Stage.AWAITING_PIN, host_key="ssh-ed25519 BBBB"))
    assert step({**CONNECTING, "hostKey": None}, seen) == [Pin("ssh-ed25519 BBBB")]


def test_ssh_time_counts_from_the_last_progress() -> None:
    session = view(Stage.CONNECTING, progress=NOW + timedelta(seconds=40))
    assert written(step(CONNECTING, Observation(session=session), later=80)).phase is NodePhase.CONNECTING
    late = written(step(CONNECTING, Observation(session=session), later=91))
    assert late.reason == NodeReason.CONNECT_TIMEOUT


def test_a_bootstrap_shows_its_step_and_ends_when_silent_for_too_long() -> None:
    session = view(Stage.BOOTSTRAPPING, step="packages", last_line="Resolved 3 packages")
    write = written(step(CONNECTING, Observation(session=session), later=100))
    assert write.phase is NodePhase.BOOTSTRAPPING
    assert write.fields["bootstrap"]["step"] == "packages"
    late = written(step(CONNECTING, Observation(session=session), later=201))
    assert late.reason == NodeReason.BOOTSTRAP_TIMEOUT


def test_a_failed_bootstrap_fails_the_node_with_its_message() -> None:
    failure = Failure(NodeReason.PACKAGE_NOT_FOUND, "pip: nope was not found", permanent=True, log="x")
    actions = step(CONNECTING, Observation(session=view(Stage.ENDED, failure=failure)))
    assert kinds(actions) == [Write, CloseSession]
    assert written(actions).message == "pip: nope was not found"
    assert written(actions).fields["bootstrap"] == {"log": "x"}


def test_a_welcomed_node_is_written_ready_before_it_takes_calls() -> None:
    actions = step(CONNECTING, Observation(session=view(Stage.LINKED, agent=AGENT)))
    assert kinds(actions) == [Write, Admit]
    assert written(actions).fields["slots"] == 2


# Ready


def test_a_ready_node_without_session_is_resumed_after_a_restart() -> None:
    assert step(READY, Observation())[0] == StartSession(resume=True)


def test_a_linked_node_writes_no_heartbeat_within_a_minute() -> None:
    session = view(Stage.LINKED, agent=AGENT, admitted=True, heard=NOW)
    for heard, is_due in ((30, False), (59, False), (60, True)):
        seen = Observation(session=replace(session, heard=NOW + timedelta(seconds=heard)))
        assert ("heartbeatTime" in written(step(READY, seen, later=heard + 4)).fields) is is_due


def test_a_look_in_between_puts_off_no_heartbeat() -> None:
    session = view(Stage.LINKED, agent=AGENT, admitted=True, heard=NOW + timedelta(seconds=44))
    assert step(READY, Observation(session=session), later=45)[-1] == Again(16)
    heard = replace(session, heard=NOW + timedelta(seconds=58))
    assert step(READY, Observation(session=heard), later=60)[-1] == Again(HEARD_EVERY)


@pytest.mark.parametrize(
    ("silent", "machine_seen", "expected"),
    [
        (1, None, []),
        (5, machine(), [Write]),
        (PATIENCE + 1, machine(), [Write, Lose, CloseSession]),
        (PATIENCE + 1, None, [Write, Lose, CloseSession]),
        (5, ABSENT, [Write, Lose, CloseSession]),
    ],
)
def test_a_silent_node_is_given_up_in_time(silent: float, machine_seen: Any, expected: list[type]) -> None:
    seen = Observation(session=view(Stage.CONNECTING, lost=NOW, trouble="refused"), machine=machine_seen)
    assert kinds(step(READY, seen, later=silent)) == expected


def test_a_node_that_is_still_to_be_connected_to_after_a_restart_is_no_news() -> None:
    waiting = Observation(session=view(Stage.CONNECTING), machine=machine())
    assert kinds(step(READY, waiting, later=20)) == []
    assert kinds(step(READY, waiting, later=PATIENCE + 1)) == [Write, Lose, CloseSession]


def test_a_node_whose_agent_is_being_restarted_is_not_given_up() -> None:
    restarting = view(Stage.BOOTSTRAPPING, lost=NOW, progress=NOW + timedelta(seconds=60))
    assert Lose not in kinds(step(READY, Observation(session=restarting), later=61))


# Down


def test_a_failed_node_releases_its_machine_at_once_and_stays() -> None:
    status = {**CONNECTING, "phase": "Failed", "reason": "BootstrapFailed"}
    assert kinds(step(status, Observation(session=view(Stage.ENDED)))) == [CloseSession, Terminate]
    ended = {**status, "billing": {"startTime": timestamp(NOW), "endTime": timestamp(NOW)}}
    assert step(ended, Observation()) == []
    assert kinds(step(ended, Observation(), deleted=True)) == [CleanUp, RemoveFinalizer]


def test_a_deleted_node_that_never_asked_for_a_machine_goes_at_once() -> None:
    assert kinds(step({}, Observation(), deleted=True)) == [RemoveFinalizer]
    assert kinds(step({"phase": "Pending"}, Observation(), deleted=True)) == [RemoveFinalizer]


@pytest.mark.parametrize("outcome", ["Pending", "Unknown"])
def test_a_deleted_node_with_an_open_intent_is_looked_for_before_it_goes(outcome: str) -> None:
    launching = {**LAUNCHING, "launch": {**LAUNCH, "outcome": outcome}}
    assert kinds(step(launching, Observation(), deleted=True)) == [Write, Lose, CloseSession]
    terminating = {**launching, "phase": "Terminating"}
    assert kinds(step(terminating, Observation(), deleted=True)) == [Terminate]


def test_a_deleted_node_whose_only_offer_was_refused_goes_at_once() -> None:
    launching = {**LAUNCHING, "launch": {**LAUNCH, "outcome": "QuotaExceeded"}}
    assert kinds(step(launching, Observation(), deleted=True)) == [CleanUp, RemoveFinalizer]


def test_a_deleted_ready_node_drains_then_terminates_then_goes() -> None:
    linked = view(Stage.LINKED, agent=AGENT, admitted=True)
    draining = step(READY, Observation(session=linked), deleted=True)
    assert kinds(draining) == [Write, Drain]
    assert written(draining).phase is NodePhase.DRAINING

    changed = {"type": "Ready", "status": "False", "lastTransitionTime": timestamp(NOW)}
    status = {**READY, "phase": "Draining", "conditions": [changed]}
    waiting = Observation(session=replace(linked, draining=True))
    assert kinds(step(status, waiting, later=1, deleted=True)) == []
    assert Lose in kinds(step(status, waiting, later=DRAIN_GRACE + 6, deleted=True))
    ended = Observation(session=view(Stage.ENDED))
    assert kinds(step(status, ended, later=1, deleted=True)) == [Write, Lose, CloseSession]

    assert kinds(step({**READY, "phase": "Terminating"}, Observation(), deleted=True)) == [Terminate]
    gone = step({**READY, "phase": "Gone"}, Observation(), deleted=True)
    assert kinds(gone) == [CleanUp, RemoveFinalizer]


def test_a_draining_node_is_met_again_after_a_restart_for_what_its_agent_holds() -> None:
    changed = {"type": "Ready", "status": "False", "lastTransitionTime": timestamp(NOW)}
    status = {**READY, "phase": "Draining", "conditions": [changed]}
    later = 3600.0  # the operator was down for long: the time to collect counts from its start
    begins = step(status, Observation(), later=later, deleted=True)
    assert kinds(begins) == [StartSession]
    assert begins[0] == StartSession(resume=True)
    fresh = replace(view(Stage.CONNECTING), started=NOW + timedelta(seconds=later))
    assert kinds(step(status, Observation(session=fresh), later=later + 1, deleted=True)) == []
    linked = replace(fresh, stage=Stage.LINKED, agent=AGENT, admitted=True)
    assert kinds(step(status, Observation(session=linked), later=later + 1, deleted=True)) == [Drain]
    unreachable = step(status, Observation(session=fresh), later=later + DRAIN_GRACE + 6, deleted=True)
    assert kinds(unreachable) == [Write, Lose, CloseSession]
    dead = Observation(session=fresh, machine=ABSENT)
    assert kinds(step(status, dead, later=later + 1, deleted=True)) == [Write, Lose, CloseSession]


def test_a_ready_node_that_was_deleted_while_nobody_watched_drains_as_well() -> None:
    begins = step(READY, Observation(), deleted=True)
    assert kinds(begins) == [Write]
    assert written(begins).phase is NodePhase.DRAINING


def test_the_finalizer_never_goes_while_a_machine_may_exist() -> None:
    for phase in NodePhase:
        if phase is NodePhase.GONE:
            continue
        actions = step({**READY, "phase": str(phase)}, Observation(), deleted=True)
        assert RemoveFinalizer not in kinds(actions), phase
