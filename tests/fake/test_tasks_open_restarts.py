"""Open tasks over restarts of the operator: what the client has had is settled, what runs goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import node_object, until
from tests.fake.test_tasks_dispatch import World

from skyward.contract.names import NODE
from skyward.wire.digest import digest
from skyward.wire.frames import Frame, FrameKind
from skyward_operator.nodes.received import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from skyward.wire.outcomes import Outcome

FUNCTION = b"pickled function"


class Client:
    """The client of the open task, without a connection in between."""

    def __init__(self) -> None:
        self.told: dict[int, Outcome] = {}
        self.left: list[int] = []

    def send(self, frame: Frame) -> None:
        """WELCOME and REFUSED."""

    def outcome(self, outcome: Outcome) -> None:
        """How a call ended."""
        self.told[outcome.index] = outcome

    def end(self, code: int, words: str) -> None:
        """The operator leaves."""
        self.left.append(code)

    def attach(self, world: World, uid: str, count: int = 0, **more: str) -> None:
        """Connect, and say what is still waited for."""
        self._reception(world).attach(self._live(world, uid), self, {"next": count, **more})

    def call(self, world: World, uid: str, *indexes: int) -> None:
        """Send calls (again)."""
        self.say(world, uid, FrameKind.FUNCTION, FUNCTION, digest=digest(FUNCTION))
        for index in indexes:
            self.say(world, uid, FrameKind.CALL, b"args", index=index, function=digest(FUNCTION))

    def say(self, world: World, uid: str, kind: FrameKind, body: bytes = b"", **header: Any) -> None:
        """One frame."""
        self._reception(world).receive(self._live(world, uid), Frame(kind, header, body))
        self._reception(world).heard(self._live(world, uid))

    def _reception(self, world: World) -> Any:
        return world.tasks.gateway_backend.reception

    def _live(self, world: World, uid: str) -> Any:
        return world.tasks.gateway_backend.live(uid)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


async def opened(world: World) -> str:
    await world.pool()
    await world.api.create(NODE, node_object("node-0", 0))
    return await world.task(calls={"python": "3.13", "open": True})


async def test_acknowledged_calls_stay_ended_and_running_ones_go_on(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(slots=2), Client()
    client.attach(world, uid)
    client.call(world, uid, 0, 1)
    node.finish(f"{uid}.0.1", body=b"zero")
    client.say(world, uid, FrameKind.ACK, indexes=[0])
    await world.restart(node)
    node.up()
    client.attach(world, uid, 2, open="1")
    client.call(world, uid, 1)
    assert len(node.calls) == 2
    node.finish(f"{uid}.1.1", body=b"one")
    assert client.told[1].body == b"one"
    client.say(world, uid, FrameKind.ACK, indexes=[1])
    client.say(world, uid, FrameKind.CLOSE, next=2)
    status = await world.ends()
    assert status["counts"] == {"total": 2, "running": 0, "succeeded": 2, "failed": 0}


async def test_client_that_is_back_before_its_nodes_does_not_have_its_call_run_twice(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    await world.restart(node)
    client.attach(world, uid, 1, open="0")
    client.call(world, uid, 0)
    node.up()
    assert len(node.calls) == 1
    node.finish(body=b"once")
    assert client.told[0].body == b"once"


async def test_outcome_that_came_while_the_client_was_away_is_told_by_the_next_operator(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    await world.restart(node)
    node.up()
    node.finish(body=b"meanwhile")
    client.attach(world, uid, 1, open="0")
    client.call(world, uid, 0)
    assert client.told[0].body == b"meanwhile"
    await until(lambda: node.acknowledged)
    await world.restart(node)
    node.up()
    later = Client()
    later.attach(world, uid, 1, open="0")
    later.call(world, uid, 0)
    await until(lambda: later.told)
    assert later.told[0].body == b"meanwhile"
    assert len(node.calls) == 1


async def test_ended_call_is_not_lost_with_a_node_that_goes_later(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    node.finish()
    client.say(world, uid, FrameKind.ACK, indexes=[0])
    await world.restart(node)
    node.die()
    await world.api.delete(NODE, "default", "node-0")
    client.attach(world, uid, 1)
    client.say(world, uid, FrameKind.CLOSE, next=1)
    status = await world.ends()
    assert status["counts"]["succeeded"] == 1
    assert status.get("attempts", {}).get("interrupted", 0) == 0


async def test_call_that_was_lost_with_the_operator_is_the_next_attempt(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    await world.restart(node)
    node.held.clear()
    node.boot_id = "boot-2"
    node.up()
    client.attach(world, uid, 1, open="0")
    client.call(world, uid, 0)
    await until(lambda: len(node.calls) == 2)
    assert [header["number"] for header, _ in node.calls] == [1, 2]


@pytest.mark.parametrize("restarts", [1, 2])
async def test_attempt_whose_outcome_the_client_had_before_the_restart_counts_once(
    world: World, restarts: int
) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    node.finish(body=b"told, and not acknowledged")
    assert client.told
    for _ in range(restarts):
        await world.restart(node)
        node.up()
    client.attach(world, uid, 1)
    client.say(world, uid, FrameKind.CLOSE, next=1)
    status = await world.ends()
    assert status["counts"]["succeeded"] == 1
    assert status["attempts"]["total"] == 1


async def test_attempt_that_never_arrived_counts_once_when_the_client_brings_it_again(world: World) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    node.held.clear()  # the frame was on its way when the operator died
    await world.restart(node)
    node.up()
    client.attach(world, uid, 1, open="0")
    client.call(world, uid, 0)
    await until(lambda: len(node.calls) == 2)
    assert [header["number"] for header, _ in node.calls] == [1, 1]
    node.finish()
    client.say(world, uid, FrameKind.ACK, indexes=[0])
    client.say(world, uid, FrameKind.CLOSE, next=1)
    status = await world.ends()
    assert status["attempts"]["total"] == 1


async def test_outcome_that_was_lost_with_operator_and_agent_makes_a_second_attempt_on_record(
    world: World,
) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    node.finish(body=b"on its way when the operator died")
    await world.restart(node)
    node.held.clear()
    node.boot_id = "boot-2"
    node.up()
    client.attach(world, uid, 1, open="0")
    client.call(world, uid, 0)
    await until(lambda: len(node.calls) == 2)
    assert [header["number"] for header, _ in node.calls] == [1, 2]
    node.finish()
    client.say(world, uid, FrameKind.ACK, indexes=[0])
    client.say(world, uid, FrameKind.CLOSE, next=1)
    attempts = (await world.ends())["attempts"]
    assert (attempts["total"], attempts["interrupted"]) == (2, 1)


async def test_outcome_in_a_file_is_told_from_there(world: World, tmp_path: Path) -> None:
    uid = await opened(world)
    node, client = world.node(), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    whole = bytes(range(256)) * 20_000
    part = Part(tmp_path / "incoming" / "one", len(whole))
    part.append([whole])
    node.finish(body=part.finish())  # type: ignore[arg-type]
    await until(lambda: client.told)
    assert client.told[0].body == whole
    await until(lambda: node.acknowledged == [f"{uid}.0.1"])
