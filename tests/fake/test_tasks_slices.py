"""Maps in slices over a fake API server and fake nodes: each call ends once, each attempt is on record."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import FakeNode, node_object, until
from tests.fake.test_tasks_dispatch import DIED, STOPPED, USER_ERROR, World, drive

from skyward.contract.names import NODE
from skyward.wire.envelopes import SLICE_BYTES, ErrorInfo, attempt_id, parse_attempt
from skyward.wire.package import NOT_SENT, CallOptions, Outcome, pack_calls, pack_outcomes
from skyward_operator.tasks import stealing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from skyward_operator.tasks.ledger import LiveTask

OK: tuple[bytes, None] = (b"value", None)
BAD: tuple[bytes, dict[str, Any]] = (b"pickled", USER_ERROR)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.api.create(NODE, node_object("node-0", 0))
        await made.pool()
        yield made


def record(fields: dict[str, Any]) -> bytes:
    """The record of an outcome with these fields in its head, and a body."""
    head = json.dumps(fields).encode()
    return struct.pack("!4sIQ", b"SKYO", len(head), 5) + head + b"value"


def live(world: World, uid: str) -> LiveTask:
    found = world.tasks.gateway_backend.ledger.get(uid)
    assert found is not None
    return found


async def in_flight(world: World, node: FakeNode, count: int = 100, **spec: Any) -> tuple[str, str, int]:
    """A map whose first call has ended: its uid, its oldest slice and how many calls that has."""
    uid = await world.task(count=count, **spec)
    node.finish()
    await until(lambda: node.acknowledged)  # else it would come again after a restart
    held = [attempt for attempt in node.waiting() if attempt in node.counts]
    assert held
    return uid, held[0], node.counts[held[0]]


async def whole(world: World, uid: str, count: int) -> dict[str, Any]:
    """The status of a map all of whose calls have returned, each once."""
    status = await world.ends()
    assert (status["phase"], status["succeededIndexes"]) == ("Succeeded", f"0-{count - 1}")
    assert sorted(world.outcomes(status, uid)) == list(range(count))
    return status


async def test_batch_is_appended_and_acknowledged_as_one(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    assert size == 8
    node.finish_some(slice_, [OK] * 5)
    assert live(world, uid).flights.at(3) is None
    rest = attempt_id(uid, parse_attempt(slice_)[1] + 5, 1)
    assert (rest in node.waiting(), node.counts[rest]) == (True, 3)
    await until(lambda: node.acknowledged == [f"{uid}.0.1", slice_])
    await drive(node)
    status = await whole(world, uid, 100)
    assert status["attempts"]["total"] == 100
    assert sorted(node.items()) == [(index, 1) for index in range(100)]


async def test_calls_that_fail_in_a_slice_fail_alone(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    first = parse_attempt(slice_)[1]
    node.finish_some(slice_, [OK, BAD, OK, BAD] + [OK] * (size - 4))
    await drive(node)
    status = await world.ends()
    assert (status["phase"], status["reason"]) == ("Failed", "UserException")
    assert status["failedIndexes"] == f"{first + 1},{first + 3}"
    assert status["error"]["index"] == first + 1
    outcomes = world.outcomes(status, uid)
    assert len(outcomes) == 100
    assert bytes(outcomes[first + 3].body) == b"pickled"


async def test_failed_call_of_a_slice_is_retried_alone_and_its_history_kept(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node, retry={"onException": 1, "backoffSeconds": 0})
    first = parse_attempt(slice_)[1]
    node.finish_some(slice_, [OK, BAD] + [OK] * (size - 2))
    await drive(node)
    status = await whole(world, uid, 100)
    assert world.outcomes(status, uid)[first + 1].attempt == f"{uid}.{first + 1}.2"
    assert [len(header.get("sizes", [0])) for header, _ in node.calls if header["number"] == 2] == [1]
    assert status["attempts"]["total"] == 101
    assert [(each["index"], each["attempt"], each["cause"]) for each in status["attempts"]["recent"]] == [
        (first + 1, 1, "UserException")
    ]
    assert live_or_none(world, uid) is None


def live_or_none(world: World, uid: str) -> LiveTask | None:
    return world.tasks.gateway_backend.ledger.get(uid)


async def test_calls_of_a_slice_behind_a_death_go_out_again_as_they_were(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node, retry={"onException": 1, "backoffSeconds": 0})
    first = parse_attempt(slice_)[1]
    node.finish_some(slice_, [OK, (b"", DIED)])
    node.give_back(f"{uid}.{first + 2}.1")
    await drive(node)
    status = await whole(world, uid, 100)
    assert status["attempts"] | {"recent": []} == {"total": 101, "interrupted": 0, "recent": []}
    sent = node.items()
    assert sent.count((first + 1, 2)) == 1
    assert all(sent.count((index, 1)) == 2 for index in range(first + 2, first + size))


async def test_lost_node_interrupts_all_that_is_left_of_its_slices_and_says_so(world: World) -> None:
    node = world.node()
    uid, slice_, _size = await in_flight(world, node)
    node.finish_some(slice_, [OK] * 3)
    left = sorted(index for index, _ in node.items())[4:]
    node.die()
    other = world.node(1)
    await drive(other)
    status = await whole(world, uid, 100)
    assert status["attempts"]["interrupted"] == len(left)
    recorded = [
        each["index"] + place
        for each in status["attempts"]["recent"]
        for place in range(each.get("count", 1))
        if each["cause"] == "MachineLost"
    ]
    assert sorted(recorded) == left
    numbers = dict(other.items())
    assert {index for index, number in numbers.items() if number == 2} == set(left)


async def test_map_that_must_not_be_repeated_is_sent_call_by_call(world: World) -> None:
    node = world.node()
    await world.task(count=50, retry={"onInterruption": 0})
    for _ in range(10):
        node.finish()
    assert not node.counts
    waiting = node.waiting()
    node.die()
    await drive(world.node(1))
    status = await world.ends()
    assert status["counts"]["failed"] == len(waiting)


async def test_slice_holds_only_calls_of_one_function_and_few_bytes(world: World) -> None:
    node = world.node()
    calls = [(index // 10 % 2, b"x" * (SLICE_BYTES // 4)) for index in range(100)]
    await world.task(count=100, package=pack_calls([b"one", b"two"], calls))
    await drive(node)
    await world.ends()
    for header, args in node.calls:
        assert len(args or b"") <= SLICE_BYTES
        count = len(header.get("sizes", [0]))
        assert header["index"] // 10 == (header["index"] + count - 1) // 10
    assert max(len(header.get("sizes", [0])) for header, _ in node.calls) == 4
    assert sorted(node.items()) == [(index, 1) for index in range(100)]


async def test_calls_with_options_of_their_own_are_sent_one_by_one(world: World) -> None:
    node = world.node()
    options = [CallOptions(run_seconds=1 + index) for index in range(20)]
    await world.task(count=20, package=pack_calls([b"f"], [(0, b"x")] * 20, options))
    await drive(node)
    await world.ends()
    assert [header["timeout"] for header, _ in node.calls] == [1.0 + index for index in range(20)]


async def test_calls_that_were_not_pickled_end_without_a_node_and_among_the_others(world: World) -> None:
    node = world.node()
    error = ErrorInfo("NotPicklable", "a lock", kind="System", reason="NotPicklable")
    not_sent = {5, 6, 40}
    calls = [
        (NOT_SENT, pack_outcomes([Outcome(index, False, b"", error)])) if index in not_sent else (0, b"x")
        for index in range(50)
    ]
    uid = await world.task(count=50, package=pack_calls([b"f"], calls), retry={"onException": 5})
    await drive(node)
    status = await world.ends()
    assert (status["failedIndexes"], status["reason"]) == ("5-6,40", "NotPicklable")
    assert status["attempts"]["total"] == 47
    assert sorted(index for index, _ in node.items()) == [i for i in range(50) if i not in not_sent]
    assert len(world.outcomes(status, uid)) == 50


async def test_map_of_which_nothing_could_be_pickled_ends(world: World) -> None:
    node = world.node()
    error = ErrorInfo("NotPicklable", "a lock", kind="System", reason="NotPicklable")
    calls = [(NOT_SENT, pack_outcomes([Outcome(index, False, b"", error)])) for index in range(3)]
    await world.task(count=3, package=pack_calls([b"f"], calls))
    assert (await world.ends())["failedIndexes"] == "0-2"
    assert not node.calls


async def test_large_outcome_in_a_slice_holds_up_none_behind_it(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    first = parse_attempt(slice_)[1]
    name = slice_
    header = {"attempt": name, "ok": True, "started": 1.0, "duration": 0.1, "size": 300_000}
    assert node.fleet.listener.announced("default", node.name, header | {"chunked": True})
    rest = node._rest(name, 1)
    assert rest is not None
    node.held[name], node.held[rest] = "done", "running"
    node.finish_some(rest, [OK] * (size - 1))
    assert live(world, uid).has_ended(first + size - 1)
    assert not live(world, uid).has_ended(first)
    node.fleet.listener.result("default", node.name, header, b"x" * 300_000)
    assert live(world, uid).has_ended(first)
    await drive(node)
    await whole(world, uid, 100)


async def test_stop_ends_the_call_that_runs_and_drops_the_rest(world: World) -> None:
    node = world.node()
    uid, slice_, _size = await in_flight(world, node, onError="Stop")
    first = parse_attempt(slice_)[1]
    node.finish_some(slice_, [BAD])
    assert set(node.cancelled) == set(node.waiting())
    for attempt in node.waiting():
        if attempt == f"{uid}.{first + 1}.1":
            node.finish_some(attempt, [(b"", STOPPED)])
            node.give_back(f"{uid}.{first + 2}.1")
        elif attempt in node.counts:
            node.give_back(attempt)
        else:
            node.finish(attempt, error=STOPPED)
    status = await world.ends()
    assert (status["reason"], status["failedIndexes"]) == ("UserException", str(first))
    assert status["counts"]["succeeded"] == 1


async def test_batch_that_comes_again_counts_once(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    told: list[Any] = []
    listener = node.fleet.listener.result
    node.fleet.listener.result = lambda *words: told.append(words) or listener(*words)  # type: ignore[method-assign, func-returns-value]
    node.finish_some(slice_, [OK] * size)
    listener(*told[0])
    await until(lambda: slice_ in node.acknowledged)
    listener(*told[0])
    await until(lambda: node.acknowledged.count(slice_) == 2)
    await drive(node)
    await whole(world, uid, 100)


async def test_batch_of_a_node_that_was_given_up_counts_where_nothing_else_ended(world: World) -> None:
    one = world.node()
    uid, slice_, size = await in_flight(world, one)
    first = parse_attempt(slice_)[1]
    held, counts = dict(one.held), dict(one.counts)
    one.die("HeartbeatLost")
    two = world.node(1)
    while not live(world, uid).has_ended(first + 1):
        two.finish()
    one.held, one.counts = held, counts
    one.finish_some(slice_, [(b"early", None)] * size)
    await drive(two)
    status = await whole(world, uid, 100)
    early = [index for index, outcome in world.outcomes(status, uid).items() if outcome.body == b"early"]
    assert early
    assert set(early) <= set(range(first + 2, first + size))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: b"junk",
        lambda fields: record(fields | {"index": fields["index"] + 1}),
        lambda fields: record(fields | {"ok": False}),
        lambda fields: record(fields | {"started": float("nan")}),
        lambda fields: record(fields | {"duration": "long"}),
        lambda fields: record({"index": fields["index"], "ok": True}),
        lambda fields: record(fields)[:-1],
    ],
    ids=["no record", "another call", "failed", "no time", "no duration", "bare", "cut off"],
)
async def test_batch_that_cannot_be_read_fails_its_calls_and_no_others(
    world: World, spoil: Callable[[dict[str, Any]], bytes]
) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    assert size > 2
    first = parse_attempt(slice_)[1]
    times = {"started": 1.0, "duration": 0.1, "node": node.name, "rank": 0, "attempt": "a"}
    body = record({"index": first, "ok": True} | times) + spoil({"index": first + 1, "ok": True} | times)
    header = {"attempt": slice_, "count": 2, "failed": [], "lengths": [1, 1]}
    rest = node._rest(slice_, 2)
    assert rest is not None
    node.held[slice_], node.held[rest] = "done", "running"
    node.fleet.listener.result("default", node.name, header, body)
    await drive(node)
    status = await world.ends()
    assert status["failedIndexes"] == f"{first}-{first + 1}"
    assert status["error"]["reason"] == "InternalError"
    assert len(world.outcomes(status, uid)) == 100
    await until(lambda: slice_ in node.acknowledged)


# What waits behind others is called back


async def test_idle_slot_gets_what_waits_behind_a_slow_node(world: World) -> None:
    slow, fast = world.node(0), world.node(1)
    uid = await world.task(count=60)
    slow.finish(duration=0.01)
    fast.finish(duration=0.01)
    while fast.waiting():  # the slow one ends nothing any more
        fast.finish(duration=0.01)
    node = slow.fleet.listener
    stuck = next(attempt for attempt in slow.waiting() if attempt in slow.counts)
    node.started("default", slow.name, {"attempt": stuck, "time": 0.0})
    await until(lambda: slow.recalled)
    while len(slow.waiting()) > 1 or slow.counts.get(stuck, 1) > 1:
        for attempt in set(slow.recalled) & set(slow.waiting()):
            if attempt != stuck:
                slow.give_back(attempt)
            elif slow.counts[stuck] > 1:
                slow.give_back(stuck, begun=1)
        while fast.waiting():
            fast.finish(duration=0.01)
        await asyncio.sleep(stealing.PAUSE_SECONDS / 5)
    assert live(world, uid).flights.calls == 1
    slow.finish(stuck)
    status = await whole(world, uid, 60)
    assert status["attempts"] == {"total": 60, "interrupted": 0, "recent": []}


async def test_nothing_is_called_back_while_anything_waits(world: World) -> None:
    slow = world.node(0)
    world.node(1, slots=2)
    await world.task(count=60)
    slow.finish(duration=0.01)
    await asyncio.sleep(3 * stealing.PAUSE_SECONDS)
    assert not slow.recalled


# Restarts


async def test_operator_that_is_killed_in_mid_slice_finds_what_ran_and_what_ended(world: World) -> None:
    node = world.node()
    uid, slice_, _size = await in_flight(world, node)
    node.finish_some(slice_, [OK] * 3)
    await until(lambda: slice_ in node.acknowledged)
    before = node.items()
    await world.restart(node)
    node.up()
    assert node.items() == before
    await drive(node)
    status = await whole(world, uid, 100)
    assert status["attempts"]["total"] == 100
    assert sorted(node.items()) == [(index, 1) for index in range(100)]


async def test_what_ended_while_no_operator_was_there_is_collected(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    await world.restart(node)
    rest = node._rest(slice_, 3)
    assert rest is not None
    node.counts[slice_], node.held[slice_], node.held[rest] = 3, "done", "running"
    node.up()
    assert live(world, uid).flights.calls >= size
    node.counts[slice_] = 3
    node.counts.pop(rest)
    node.counts[slice_] = size
    node.finish_some(slice_, [OK] * 3)
    await drive(node)
    status = await whole(world, uid, 100)
    assert status["attempts"]["total"] == 100
    assert sorted(node.items()) == [(index, 1) for index in range(100)]


async def test_rest_of_a_slice_that_the_agent_does_not_have_is_sent_again(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    first = parse_attempt(slice_)[1]
    node.counts[slice_] = 2  # the rest came back, and the word of it was lost with the link
    node.down()
    node.up()
    assert node.calls[-1][0]["attempt"] == f"{uid}.{first + 2}.1"
    assert len(node.calls[-1][0]["sizes"]) == size - 2
    await drive(node)
    status = await whole(world, uid, 100)
    assert (status["attempts"]["total"], status["attempts"]["interrupted"]) == (100, 0)


@pytest.mark.parametrize("at_once", [True, False], ids=["with the operator", "alone"])
async def test_agent_that_is_killed_in_mid_slice_has_each_attempt_on_record(
    world: World, at_once: bool
) -> None:
    node = world.node()
    uid, slice_, _size = await in_flight(world, node)
    node.finish_some(slice_, [OK] * 3)
    await until(lambda: slice_ in node.acknowledged)
    left = sorted(index for index, _ in node.items())[4:]
    if at_once:
        await world.restart(node)
    else:
        node.down()
    node.held.clear()
    node.counts.clear()
    node.boot_id = "boot-2"
    node.up()
    await drive(node)
    status = await whole(world, uid, 100)
    assert status["attempts"]["interrupted"] == len(left)
    assert status["attempts"]["total"] == 100 + len(left)
    assert {index for index, number in node.items() if number == 2} == set(left)


async def test_returned_calls_are_no_attempts_over_a_restart(world: World) -> None:
    node = world.node()
    uid, slice_, size = await in_flight(world, node)
    node.down()
    world.fleet.listener.result(
        "default",
        node.name,
        {"attempt": slice_, "count": size, "reason": "Returned", "refused": True, "message": ""},
        b"",
    )
    node.held.clear()
    node.counts.clear()
    await world.restart(node)
    node.boot_id = "boot-2"
    node.up()
    await drive(node)
    status = await whole(world, uid, 100)
    recorded = [each["index"] for each in status["attempts"]["recent"]]
    assert parse_attempt(slice_)[1] not in recorded


@pytest.mark.parametrize("seed", range(5))
async def test_map_with_failures_losses_and_kills_at_random_ends_each_call_once(
    world: World, seed: int
) -> None:
    """The nodes are the ledger: what they were sent, and what each attempt came to."""
    dice = random.Random(seed)
    count = 2000
    nodes = {rank: world.node(rank) for rank in range(3)}
    uid = await world.task(count=count, retry={"onException": 50, "onInterruption": 50, "backoffSeconds": 0})
    failures = losses = 0
    while live_or_none(world, uid) is not None and not live(world, uid).completing:
        busy = [node for node in nodes.values() if node.waiting()]
        if not busy:
            await asyncio.sleep(0.001)
            continue
        node = dice.choice(busy)
        attempt = dice.choice(node.waiting())
        size = node.counts.get(attempt)
        chance = dice.random()
        if chance < 0.01:
            losses += 1
            node.die()
            node.up()
        elif chance < 0.02:
            await until(lambda: not live(world, uid).unacknowledged)
            await world.restart(*nodes.values())
            for each in nodes.values():
                each.up()
        elif size is None:
            node.finish(attempt, body=b"value")
        elif chance < 0.1 and size > 1:
            node.give_back(attempt, begun=dice.randrange(size))
        else:
            ends = [BAD if dice.random() < 0.05 else OK for _ in range(dice.randint(1, size))]
            failures += ends.count(BAD)
            node.finish_some(attempt, ends)
    status = await whole(world, uid, count)
    print(f"{failures} failures and {losses} lost nodes: {status['attempts']['total']} attempts")
    sent = [item for node in nodes.values() for item in node.items()]
    numbers: dict[int, set[int]] = {}
    for index, number in sent:
        numbers.setdefault(index, set()).add(number)
    assert sorted(numbers) == list(range(count))
    assert all(each == set(range(1, max(each) + 1)) for each in numbers.values()), "a number was left out"
    assert failures
