"""Tasks end to end over a fake API server and fake nodes: dispatch, results, retries, losses, restarts."""

from __future__ import annotations

import asyncio
import os
import re
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import pytest
from tests.fake.cluster_fakes import FakeApi, FakeNode, fake_context, node_object, pool_object, until

from skyward.contract.names import NODE, POOL, TASK
from skyward.wire.digest import digest
from skyward.wire.outcomes import Outcome, digest_outcomes, iter_outcomes
from skyward.wire.package import CallOptions, PartsIndex, pack_calls
from skyward.wire.parts import Part as WirePart
from skyward_operator.kube.errors import Invalid, Unavailable
from skyward_operator.nodes.fleet import Fleet
from skyward_operator.nodes.received import Part
from skyward_operator.tasks import Tasks, build
from skyward_operator.tasks.record import Pace
from skyward_operator.tasks.results import ResultFile
from skyward_operator.tasks.status import live_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from skyward_operator.context import Context

USER_ERROR = {
    "type": "ValueError",
    "module": "builtins",
    "message": "no good",
    "traceback": "Traceback…",
    "kind": "User",
    "reason": "UserException",
}
DIED = {"type": "WorkerDied", "message": "killed by signal 9", "kind": "System", "reason": "WorkerDied"}
INTERRUPTED = {"type": "Interrupted", "message": "beside", "kind": "System", "reason": "Interrupted"}
STOPPED = {"type": "Cancelled", "message": "stopped", "kind": "System", "reason": "Cancelled"}


class World:
    """One operator's tasks over fakes; `restart` replaces the operator and keeps everything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api: FakeApi
        self.fleet = Fleet()
        self.tasks: Tasks
        self.context: Context
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._start(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def restart(self, *nodes: FakeNode) -> None:
        """Kill the operator and start another one; nodes have to answer again."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self.fleet = Fleet()
        for node in nodes:
            node.fleet = self.fleet
        await self._start(self.api)

    async def _start(self, api: FakeApi | None) -> None:
        self.context, self.api = await self._stack.enter_async_context(fake_context(self.folder, api))
        pace = Pace(first=0.03, running=0.03, waiting=0.03)
        self.tasks = build(self.context, self.fleet, pace=pace)
        self.fleet.listen(self.tasks.listener)
        running = asyncio.create_task(self.tasks.run())
        self._stack.push_async_callback(_stop, running)
        await self.tasks.caught_up.wait()

    def node(self, rank: int = 0, slots: int = 1, **more: Any) -> FakeNode:
        """A node that is ready."""
        node = FakeNode(self.fleet, f"node-{rank}", rank, slots, **more)
        node.up()
        return node

    async def pool(self, nodes: int = 1, **spec: Any) -> None:
        """The pool."""
        await self.api.create(POOL, pool_object(nodes=nodes, **spec))

    async def task(
        self, name: str = "task", count: int = 1, package: bytes | None = None, **spec: Any
    ) -> str:
        """A task of `count` calls whose arguments are their index; returns its uid."""
        packed = package or pack_calls([b"function"], [(0, f"args {i}".encode()) for i in range(count)])
        calls = {"python": "3.13", "count": count, "package": b64encode(packed).decode()}
        body = {"poolRef": {"name": "pool"}, "calls": calls} | spec
        if body["calls"] is None:
            del body["calls"]
        task = await self.api.create(TASK, {"metadata": {"namespace": "default", "name": name}, "spec": body})
        return str(task["metadata"]["uid"])

    async def ends(self, name: str = "task") -> dict[str, Any]:
        """Wait for the end of a task; its status."""
        await until(lambda: self.api.status(name).get("phase") in ("Succeeded", "Failed", "Cancelled"))
        return self.api.status(name)

    async def says(self, reason: str, name: str = "task") -> dict[str, Any]:
        """Wait until a task gives this reason; its status."""
        await until(lambda: self.api.status(name).get("reason") == reason)
        return self.api.status(name)

    def blob(self, uid: str, name: str) -> Path:
        """A file of a task."""
        return self.folder / "blobs" / "default" / uid / name

    def outcomes(self, status: dict[str, Any], uid: str = "") -> dict[int, Outcome]:
        """The outcomes of an ended task by index, from wherever they are."""
        result = status["result"]
        packed = (
            b64decode(result["package"]) if "package" in result else self.blob(uid, "results").read_bytes()
        )
        found = list(iter_outcomes(packed))
        assert len({outcome.index for outcome in found}) == len(found)
        return {outcome.index: outcome for outcome in found}


async def _stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


async def drive(*nodes: FakeNode, rounds: int = 10_000) -> None:
    """Let nodes end what they hold until nothing comes any more."""
    for _ in range(rounds):
        busy = [node for node in nodes if node.waiting()]
        if not busy:
            await asyncio.sleep(0.005)
            if not any(node.waiting() for node in nodes):
                return
        for node in busy:
            attempt = node.waiting()[0]
            node.finish(attempt, body=f"result {node.index_of(attempt)}".encode())


# One call


async def test_call_on_a_free_slot_is_sent_at_once_and_written_once(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    # Without a turn of the event loop in between: the watch event itself dispatches.
    assert [header["attempt"] for header, _ in node.calls] == [f"{uid}.0.1"]
    header, args = node.calls[0]
    assert args == b"args 0"
    assert node.functions == {header["function"]: b"function"}
    assert header["context"]["total_nodes"] == 1
    node.finish(body=b"value")
    assert node.acknowledged == []
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert world.outcomes(status)[0].body == b"value"
    assert len(world.api.status_writes) == 1
    await until(lambda: node.acknowledged == [f"{uid}.0.1"])


async def test_function_is_sent_once_per_node(world: World) -> None:
    await world.pool()
    node = world.node(slots=4)
    sent: list[str] = []
    node.ensure_function = lambda digest, data: sent.append(digest)  # type: ignore[method-assign]
    for number in range(4):
        await world.task(f"task-{number}")
    assert len(node.calls) == 4
    assert len(sent) == 1


async def test_result_is_not_acknowledged_before_it_is_durable(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    world.api.failures += [Unavailable("away"), Unavailable("away")]
    node.finish(body=b"value")
    await until(lambda: not world.api.failures or None)
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    await until(lambda: len(node.acknowledged) == 1)


async def test_result_in_a_file_becomes_the_blob_and_one_that_nobody_wants_is_not_fetched(
    world: World, tmp_path: Path
) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    attempt = node.waiting()[0]
    part = Part(tmp_path / "part", 200_000)
    part.append([b"x" * 200_000])
    header = {"attempt": attempt, "ok": True, "started": 1.0, "duration": 0.1, "size": 200_000}
    assert node.fleet.listener.announced("default", node.name, header | {"chunked": True})
    node.fleet.listener.stalled("default", node.name, attempt, "no room")
    live = world.tasks.gateway_backend.ledger.get(uid)
    assert live is not None
    assert live_state(live)[2] == "no room"
    node.fleet.listener.stalled("default", node.name, attempt, None)
    node.fleet.listener.result("default", node.name, header, part.finish())
    status = await world.ends()
    assert world.outcomes(status, uid)[0].body == b"x" * 200_000
    assert not part.path.exists()
    await until(lambda: node.acknowledged == [attempt])
    await until(lambda: world.tasks.gateway_backend.ledger.get(uid) is None)
    assert not node.fleet.listener.announced("default", node.name, header)  # its task has ended
    assert node.acknowledged == [attempt, attempt]


async def test_large_result_goes_to_a_blob(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    node.finish(body=b"x" * 200_000)
    status = await world.ends()
    packed = world.blob(uid, "results").read_bytes()
    assert status["result"]["blob"] == {"digest": digest_outcomes(BytesIO(packed)), "sizeBytes": len(packed)}
    assert world.outcomes(status, uid)[0].body == b"x" * 200_000
    await until(lambda: len(node.acknowledged) == 1)


def _with_part(count: int, big: bytes) -> tuple[dict[str, Any], bytes]:
    """The calls of a task that share a large part, and their payload."""
    index, part = PartsIndex(), WirePart(digest(big), len(big), (big,))
    for number in range(count):
        index.need(1 + number, [part])
    package = pack_calls([b"function"], [(0, b"x")] * count, parts=index)
    blob = {"digest": digest(package), "sizeBytes": len(package)}
    return {"python": "3.13", "count": count, "blob": blob}, package + big


async def test_large_parts_go_ahead_of_the_calls_that_need_them(world: World) -> None:
    await world.pool()
    node = world.node(slots=2)
    big = os.urandom(3_000_000)
    calls, payload = _with_part(2, big)
    uid = await world.task(calls=calls)
    await world.says("AwaitingPayload")
    path = world.blob(uid, "payload")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    world.tasks.gateway_backend.payload_arrived(uid)
    await until(lambda: len(node.calls) == 2)
    for header, args in node.calls:
        assert args == b"x"
        assert header["blobs"] == [digest(big)]
    assert node.blobs == {digest(big): big}
    node.finish()
    node.finish()
    assert (await world.ends())["phase"] == "Succeeded"


async def test_full_disk_of_a_node_ends_the_call_with_what_to_do_and_others_go_on(world: World) -> None:
    await world.pool()
    node = world.node()
    node.refuse = lambda header: "BlobNotStored" if header.get("blobs") else None
    calls, payload = _with_part(1, os.urandom(100_000))
    uid = await world.task(calls=calls)
    path = world.blob(uid, "payload")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    world.tasks.gateway_backend.payload_arrived(uid)
    status = await world.ends()
    assert status["reason"] == "ArgumentsNotStored"
    assert "node-0 refused the call" in status["message"]
    assert len(node.calls) == 1
    await world.task("other")
    await until(lambda: len(node.calls) == 2)
    node.finish()
    assert (await world.ends("other"))["phase"] == "Succeeded"


async def test_arguments_that_should_stand_apart_are_refused(world: World) -> None:
    await world.pool()
    node = world.node()
    payload = pack_calls([b"function"], [(0, b"a" * 4_000_000)])
    blob = {"digest": digest(payload), "sizeBytes": len(payload)}
    uid = await world.task(calls={"python": "3.13", "count": 1, "blob": blob})
    path = world.blob(uid, "payload")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    world.tasks.gateway_backend.payload_arrived(uid)
    status = await world.ends()
    assert status["reason"] == "PayloadInvalid"
    assert "has to stand apart" in status["message"]
    assert node.calls == []


async def test_second_call_waits_for_the_slot_and_says_so(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task("first")
    await world.task("second")
    assert len(node.calls) == 1
    status = await world.says("Queued", "second")
    assert "free slot: the pool has 1 slot" in status["message"]
    node.finish()
    assert len(node.calls) == 2


async def test_waiting_task_is_not_written_again_without_a_change(world: World) -> None:
    await world.task()
    await world.says("PoolNotFound")
    before = len(world.api.status_writes)
    await world.task("other")
    await world.says("PoolNotFound", "other")
    assert [name for name, _ in world.api.status_writes[before:]] == ["other"]


async def test_end_of_a_task_is_written_while_words_on_many_others_are_stuck(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.pool()
    node = world.node()
    for number in range(60):  # more than may be written at a time
        await world.task(f"task-{number}")
    patch, stuck = world.api.patch_status, set[str]()

    async def slow_for_words(kind: Any, namespace: str, name: str, status: Any, **more: Any) -> Any:
        if status.get("phase") != "Succeeded":
            stuck.add(name)
            await asyncio.Event().wait()
        return await patch(kind, namespace, name, status, **more)

    monkeypatch.setattr(world.api, "patch_status", slow_for_words)
    await until(lambda: stuck)
    for _ in range(50):  # turns of the loop, in which all the others would get stuck as well
        await asyncio.sleep(0.001)
    node.finish(body=b"value")
    assert (await world.ends("task-0"))["phase"] == "Succeeded"


async def test_task_of_a_missing_pool_runs_when_the_pool_appears(world: World) -> None:
    await world.task()
    status = await world.says("PoolNotFound")
    assert "there is no pool pool in default" in status["message"]
    await world.pool()
    node = world.node()
    assert len(node.calls) == 1


async def test_suspended_task_runs_when_it_is_resumed(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task(suspend=True)
    assert (await world.says("Suspended"))["phase"] == "Suspended"
    await world.api.patch(TASK, "default", "task", {"spec": {"suspend": False}})
    assert len(node.calls) == 1


async def test_other_python_on_the_pool_ends_the_task(world: World) -> None:
    await world.pool(image={"python": "3.12"})
    world.node(python="3.12.4")
    await world.task()
    status = await world.ends()
    assert status["reason"] == "EnvironmentMismatch"
    assert "3.13" in status["message"]
    assert "3.12" in status["message"]


async def test_other_python_on_the_node_ends_the_task(world: World) -> None:
    await world.pool(image={})
    node = world.node(python="3.12.4")
    await world.task()
    assert (await world.ends())["reason"] == "EnvironmentMismatch"
    assert node.calls == []


async def test_package_that_is_none_ends_the_task(world: World) -> None:
    await world.pool()
    world.node()
    await world.task(package=b"this is no package")
    assert (await world.ends())["reason"] == "PayloadInvalid"


async def test_function_in_json_gives_a_value(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task(calls=None, function={"entrypoint": "math:factorial", "args": [5]})
    header, args = node.calls[0]
    assert header["entry"] == {"entrypoint": "math:factorial", "args": [5], "kwargs": {}}
    assert args is None
    node.finish(value=120)
    status = await world.ends()
    assert status["result"]["value"] == 120
    assert status["display"]["progress"] == "1/1"


async def test_items_give_one_call_each_and_a_list_of_values(world: World) -> None:
    await world.pool()
    node = world.node(slots=3)
    await world.task(calls=None, function={"entrypoint": "math:pow", "items": [1, 2, 3], "args": [2]})
    assert [header["entry"]["args"] for header, _ in node.calls] == [[1, 2], [2, 2], [3, 2]]
    for attempt in node.waiting():
        node.finish(attempt, value=node.index_of(attempt))
    assert (await world.ends())["result"]["value"] == [0, 1, 2]


async def test_command_is_an_entry_too(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task(calls=None, command={"argv": ["true"], "env": [{"name": "A", "value": "1"}]})
    assert node.calls[0][0]["entry"] == {"argv": ["true"], "env": {"A": "1"}}


async def test_status_that_is_refused_does_not_loop_for_ever(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    world.api.failures.append(Invalid("too long"))
    node.finish(body=b"value")
    status = await world.ends()
    assert (status["phase"], status["reason"]) == ("Failed", "InternalError")


# Many calls


async def test_map_returns_every_outcome_once(world: World) -> None:
    await world.pool(nodes=2)
    nodes = [world.node(rank, slots=2) for rank in range(2)]
    uid = await world.task(count=300)
    await drive(*nodes)
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert status["succeededIndexes"] == "0-299"
    outcomes = world.outcomes(status, uid)
    assert {i: bytes(o.body) for i, o in outcomes.items()} == {i: f"result {i}".encode() for i in range(300)}
    await until(lambda: sum(len(node.acknowledged) for node in nodes) == 300)
    assert sum(len(node.items()) for node in nodes) == 300
    assert all(len(node.items()) > 50 for node in nodes)


async def test_map_does_not_overfill_nodes(world: World) -> None:
    await world.pool()
    node = world.node(slots=2)
    await world.task(count=100)
    assert len(node.waiting()) == 2
    node.finish(duration=20.0)
    assert len(node.waiting()) == 2


async def test_short_calls_are_sent_ahead(world: World) -> None:
    await world.pool()
    node = world.node(slots=1)
    await world.task(count=1000)
    node.finish(duration=0.01)
    assert 3 <= len(node.waiting()) <= 33


async def test_failed_calls_do_not_stop_the_others(world: World) -> None:
    await world.pool()
    node = world.node(slots=3)
    uid = await world.task(count=3)
    first, second, third = node.waiting()
    node.finish(second, body=b"pickled error", error=USER_ERROR)
    node.finish(first)
    node.finish(third)
    status = await world.ends()
    assert (status["phase"], status["reason"]) == ("Failed", "UserException")
    assert status["failedIndexes"] == "1"
    assert status["error"]["type"] == "ValueError"
    assert status["error"]["index"] == 1
    assert "1 of 3 calls failed" in status["message"]
    outcomes = world.outcomes(status, uid)
    assert outcomes[1].error is not None
    assert bytes(outcomes[1].body) == b"pickled error"
    assert outcomes[0].ok


async def test_on_error_stop_cancels_the_rest(world: World) -> None:
    await world.pool()
    node = world.node(slots=2)
    await world.task(count=10, onError="Stop")
    first, second = node.waiting()
    node.finish(first, error=USER_ERROR)
    assert node.cancelled == [second]
    node.finish(second, error=STOPPED)
    status = await world.ends()
    assert status["reason"] == "UserException"
    assert len(node.calls) == 2


async def test_running_map_is_written_as_it_goes(world: World) -> None:
    await world.pool()
    node = world.node(slots=2)
    await world.task(count=4)
    node.finish(duration=10.0)
    await until(lambda: world.api.status("task").get("counts", {}).get("succeeded") == 1)
    status = world.api.status("task")
    assert status["phase"] == "Running"
    assert status["display"]["progress"] == "1/4"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Running"] == "True"


# Failures and retries


async def test_exception_ends_the_task_with_its_traceback(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    node.finish(body=b"pickled", error=USER_ERROR)
    status = await world.ends()
    assert status["error"]["traceback"] == "Traceback…"
    assert status["error"]["kind"] == "User"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Scheduled": "True",
        "Running": "False",
        "Succeeded": "False",
        "Failed": "True",
    }
    assert bytes(world.outcomes(status)[0].body) == b"pickled"


async def test_exception_is_retried_as_often_as_asked(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task(retry={"onException": 1, "backoffSeconds": 0})
    node.finish(error=USER_ERROR)
    assert node.waiting() == [f"{uid}.0.2"]
    node.finish(body=b"second")
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert status["attempts"]["total"] == 2
    assert [a["cause"] for a in status["attempts"]["recent"]] == ["UserException"]


async def test_died_worker_is_not_retried_unasked(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    node.finish(error=DIED)
    status = await world.ends()
    assert status["reason"] == "WorkerDied"
    assert status["error"]["kind"] == "System"


async def test_call_whose_worker_was_stopped_for_another_one_is_tried_again_as_after_a_loss(
    world: World,
) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    for number in range(1, 4):
        node.finish(f"{uid}.0.{number}", error=INTERRUPTED)
        assert len(node.calls) == number + 1
    node.finish(f"{uid}.0.4", body=b"in the end")
    status = await world.ends()
    assert world.outcomes(status)[0].body == b"in the end"
    assert (status["attempts"]["total"], status["attempts"]["interrupted"]) == (4, 3)
    assert {each["cause"] for each in status["attempts"]["recent"]} == {"WorkerStopped"}


async def test_call_whose_worker_was_stopped_for_another_one_is_not_repeated_where_that_must_not_be(
    world: World,
) -> None:
    await world.pool()
    node = world.node()
    await world.task(retry={"onInterruption": 0})
    node.finish(error=INTERRUPTED)
    status = await world.ends()
    assert status["reason"] == "Indeterminate"
    assert len(node.calls) == 1


async def test_lost_node_moves_the_call(world: World) -> None:
    told: list[tuple[str, ...]] = []

    def emit(task: dict[str, Any], *words: str) -> None:
        told.append((task["metadata"]["name"], *words))

    world.context.events.emit = emit  # type: ignore[method-assign, assignment]
    await world.pool(nodes=2)
    one = world.node(0)
    uid = await world.task()
    two = world.node(1)
    one.die()
    assert two.waiting() == [f"{uid}.0.2"]
    two.finish(body=b"value")
    header, _ = two.calls[0]
    # Told anew, from the nodes that answer now: the rank stays, the place is dense.
    assert {key: header["context"][key] for key in ("rank", "node", "total_nodes")} == {
        "rank": 1, "node": 0, "total_nodes": 1,
    }  # fmt: skip
    text = f"node {one.name} was lost (MachineLost) while a call ran; it is tried again"
    assert told == [("task", "Warning", "MachineLost", text)]
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert status["attempts"]["interrupted"] == 1
    assert status["attempts"]["recent"][0]["cause"] == "MachineLost"


async def test_lost_node_ends_the_call_when_retries_are_used_up(world: World) -> None:
    await world.pool()
    await world.task(retry={"onInterruption": 1})
    world.node(0).die()
    assert world.api.status("task").get("phase") != "Failed"
    FakeNode(world.fleet, "node-b", 0).up()
    world.fleet.lost(("default", "node-b"), "MachineLost")
    status = await world.ends()
    assert status["reason"] == "NodeLost"
    assert status["error"]["kind"] == "System"


async def test_lost_node_is_indeterminate_without_retries(world: World) -> None:
    await world.pool()
    await world.task(retry={"onInterruption": 0})
    world.node().die()
    assert (await world.ends())["reason"] == "Indeterminate"


async def test_restarted_agent_interrupts_what_it_ran(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    node.down()
    node.held.clear()
    node.boot_id = "boot-2"
    node.up()
    assert node.waiting() == [f"{uid}.0.2"]


async def test_call_that_got_lost_with_the_link_is_sent_again(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task()
    node.held.clear()  # the frame never arrived
    node.down()
    node.up()
    assert node.waiting() == [f"{uid}.0.1"]
    assert len(node.calls) == 2


async def test_running_call_survives_a_broken_link(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    node.down()
    node.up()
    assert len(node.calls) == 1
    node.finish(body=b"value")
    assert (await world.ends())["phase"] == "Succeeded"


async def test_node_without_link_is_passed_over(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), world.node(1)
    one.down()
    await world.task("a")
    await world.task("b")
    assert len(two.waiting()) == 1
    assert one.calls == []
    one.up()
    assert len(one.waiting()) == 1


async def test_missing_function_is_sent_again(world: World) -> None:
    await world.pool()
    node = FakeNode(world.fleet, "node-0", 0)
    refusals = ["FunctionMissing"]
    node.refuse = lambda header: refusals.pop() if refusals else None
    node.up()
    await world.task()
    await until(node.waiting)
    assert len(node.calls) == 2


async def test_refused_call_fails_and_frees_its_slot(world: World) -> None:
    await world.pool()
    node = FakeNode(world.fleet, "node-0", 0)
    node.refuse = lambda header: "Malformed" if header["task"] == "default/bad" else None
    node.up()
    await world.task("bad")
    assert (await world.ends("bad"))["reason"] == "PayloadInvalid"
    await world.task("good")
    assert len(node.waiting()) == 1


async def test_result_that_comes_twice_counts_once(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    attempt = node.finish(body=b"one")
    node.finish(attempt, body=b"one")
    await world.ends()
    node.finish(attempt, body=b"one")
    assert node.acknowledged[-1] == attempt
    assert len(world.api.status_writes) == 1


# Broadcasts


async def test_broadcast_freezes_index_and_size(world: World) -> None:
    await world.pool(nodes=3)
    nodes = [world.node(rank) for rank in (0, 2, 5)]
    uid = await world.task(target={"mode": "All"})
    await until(lambda: all(node.waiting() for node in nodes))
    places = [(n.calls[0][0]["index"], n.calls[0][0]["context"]["total_nodes"]) for n in nodes]
    assert places == [(0, 3), (1, 3), (2, 3)]
    assert [n.calls[0][0]["context"]["node"] for n in nodes] == [0, 1, 2]
    assert all(n.calls[0][1] == b"args 0" for n in nodes)
    late = world.node(6)
    assert late.calls == []
    for node in nodes:
        node.finish(body=node.name.encode())
    outcomes = world.outcomes(await world.ends(), uid)
    assert {i: bytes(o.body) for i, o in outcomes.items()} == {0: b"node-0", 1: b"node-2", 2: b"node-5"}


async def test_broadcast_waits_for_all_wanted_nodes(world: World) -> None:
    await world.pool(nodes=2)
    one = world.node(0)
    await world.task(target={"mode": "All"})
    status = await world.says("AwaitingNodes")
    assert "1 of 2 nodes ready" in status["message"]
    assert one.calls == []
    two = world.node(1)
    await until(lambda: one.waiting() and two.waiting())


async def test_broadcast_and_single_call_on_one_node_keep_their_results(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0, slots=2), world.node(1, slots=2)
    broadcast = await world.task("all", target={"mode": "All"})
    await until(lambda: one.waiting() and two.waiting())
    single = await world.task("single", target={"mode": "Head"})
    one.finish(f"{single}.0.1", body=b"single")
    one.finish(f"{broadcast}.0.1", body=b"first")
    two.finish(f"{broadcast}.1.1", body=b"second")
    assert world.outcomes(await world.ends("single"))[0].body == b"single"
    found = world.outcomes(await world.ends("all"), broadcast)
    assert [bytes(found[i].body) for i in range(2)] == [b"first", b"second"]


async def test_lost_member_is_run_again_on_another_node_with_its_place(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), world.node(1)
    await world.task(target={"mode": "All"})
    await until(lambda: one.waiting() and two.waiting())
    two.die()
    one.finish(body=b"first")
    header = one.calls[-1][0]
    assert (header["index"], header["context"]["node"], header["context"]["total_nodes"]) == (1, 1, 2)
    one.finish(body=b"second")
    assert (await world.ends())["phase"] == "Succeeded"


async def test_lost_member_with_a_queue_timeout_waits_for_its_rank_only(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), world.node(1)
    await world.task(target={"mode": "All"}, timeouts={"queueSeconds": 60})
    await until(lambda: one.waiting() and two.waiting())
    two.die()
    one.finish(body=b"first")
    assert one.waiting() == []
    again = FakeNode(world.fleet, "node-1b", 1)
    again.up()
    assert len(again.waiting()) == 1
    again.finish(body=b"second")
    assert (await world.ends())["phase"] == "Succeeded"


async def test_lost_member_whose_rank_stays_empty_fails_alone(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), world.node(1)
    uid = await world.task(target={"mode": "All"}, timeouts={"queueSeconds": 1})
    await until(lambda: one.waiting() and two.waiting())
    one.finish(body=b"first")
    two.die()
    status = await world.ends()
    assert status["reason"] == "NodeLost"
    outcomes = world.outcomes(status, uid)
    assert outcomes[0].ok
    assert outcomes[1].error is not None
    assert outcomes[1].error.reason == "NodeLost"
    assert [outcomes[index].number for index in (0, 1)] == [1, 1]


# Ends that nobody computed


async def test_cancel_stops_what_runs(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    await world.api.patch(TASK, "default", "task", {"spec": {"cancel": True}})
    assert node.cancelled == node.waiting()
    node.finish(error=STOPPED)
    status = await world.ends()
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")


async def test_cancel_of_a_waiting_task_ends_it_at_once(world: World) -> None:
    await world.pool()
    await world.task()
    await world.api.patch(TASK, "default", "task", {"spec": {"cancel": True}})
    assert (await world.ends())["phase"] == "Cancelled"


async def test_deleted_task_is_stopped_and_its_files_go(world: World) -> None:
    await world.pool()
    node = world.node(slots=2)
    uid = await world.task(count=5)
    first, second = node.waiting()
    node.finish(first, duration=10.0)
    await until(world.blob(uid, "results").exists)
    await world.api.delete(TASK, "default", "task")
    assert set(node.cancelled) == set(node.waiting())
    while node.waiting():
        node.finish(error=STOPPED)
    await until(lambda: not world.blob(uid, "").exists())
    assert world.api.status_writes == [] or world.api.status_writes[-1][1]["phase"] == "Running"
    assert second in node.acknowledged


async def test_deleted_pool_ends_its_tasks(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task("running")
    await world.task("waiting")
    await world.api.delete(POOL, "default", "pool")
    assert (await world.ends("waiting"))["reason"] == "PoolDeleted"
    assert node.cancelled == node.waiting()
    node.die()
    status = await world.ends("running")
    assert (status["phase"], status["reason"]) == ("Cancelled", "PoolDeleted")


async def test_queue_timeout_says_what_was_awaited(world: World) -> None:
    await world.pool()
    await world.task(timeouts={"queueSeconds": 1})
    status = await world.ends()
    assert status["reason"] == "QueueTimeout"
    assert "0 of 1 nodes ready" in status["message"]


async def test_queue_timeout_that_is_changed_counts_from_when_it_began_to_wait(world: World) -> None:
    await world.pool()
    await world.task("raised", timeouts={"queueSeconds": 1})
    await world.task("lifted", timeouts={"queueSeconds": 1})
    await world.task("lowered", timeouts={"queueSeconds": 3600})
    for name, seconds in (("raised", 3600), ("lifted", None), ("lowered", 2)):
        await world.api.patch(TASK, "default", name, {"spec": {"timeouts": {"queueSeconds": seconds}}})
    assert "no call started within 2 s" in (await world.ends("lowered"))["message"]
    node = world.node(slots=2)
    await until(lambda: len(node.calls) == 2)
    while node.waiting():
        node.finish()
    for name in ("raised", "lifted"):
        assert (await world.ends(name))["phase"] == "Succeeded"


async def test_run_timeout_that_is_changed_is_told_to_the_node_and_again_when_it_comes_back(
    world: World,
) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task(timeouts={"runSeconds": 5})
    await until(lambda: node.calls)
    await world.api.patch(TASK, "default", "task", {"spec": {"timeouts": {"runSeconds": 3600}}})
    await until(lambda: node.limits)
    assert node.limits == [(f"{uid}.0.1", 3600.0)]
    node.limits.clear()
    node.up()
    await until(lambda: node.limits)
    assert node.limits == [(f"{uid}.0.1", 3600.0)]


async def test_queue_timeout_does_not_end_what_started(world: World) -> None:
    await world.pool()
    node = world.node()
    uid = await world.task(timeouts={"queueSeconds": 1})
    live = world.tasks.gateway_backend.ledger.get(uid)
    assert live is not None
    for timer in live.timers:
        timer._callback(*timer._args)  # type: ignore[attr-defined]
    node.finish(body=b"late")
    assert (await world.ends())["phase"] == "Succeeded"


async def test_rank_beyond_the_pool_ends_the_task(world: World) -> None:
    await world.pool(nodes=2)
    await world.task(target={"mode": "Rank", "rank": 7})
    assert (await world.ends())["reason"] == "RankNotFound"


async def test_ended_task_is_deleted_after_its_time_to_live(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task(ttlSecondsAfterFinished=0)
    node.finish()
    await until(lambda: not any(plural == TASK.plural for plural, _, _ in world.api.objects))


async def test_result_without_room_on_the_disk_is_said_and_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward_operator.tasks.results._RETRY_SECONDS", 0.01)
    original, full = ResultFile._append, [True]

    def append(file: ResultFile, batch: list[Any]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        original(file, batch)

    monkeypatch.setattr(ResultFile, "_append", append)
    await world.pool()
    node = world.node()
    await world.task()
    node.finish(body=b"v" * 100_000)
    await until(lambda: world.api.status("task").get("reason") == "AwaitingStorage")
    status = world.api.status("task")
    assert status["phase"] == "Running"
    assert re.search(
        r"No space left on device: 100,000 bytes are needed and [\d,]+ are free", status["message"]
    )
    assert "Free space on the operator's disk" in status["message"]
    full.clear()
    assert (await world.ends())["phase"] == "Succeeded"


async def test_task_managed_elsewhere_is_left_alone(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task(managedBy="example.com/other")
    assert node.calls == []


# Restarts


async def test_restart_adopts_what_agents_run(world: World) -> None:
    await world.pool()
    await world.api.create(NODE, node_object("node-0", 0))
    node = world.node()
    uid = await world.task()
    await world.restart(node)
    assert len(node.calls) == 1
    node.up()
    assert len(node.calls) == 1
    node.finish(body=b"value")
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert node.acknowledged == [f"{uid}.0.1"]


async def test_restart_collects_what_ended_meanwhile(world: World) -> None:
    await world.pool()
    await world.api.create(NODE, node_object("node-0", 0))
    node = world.node()
    await world.task()
    await world.restart(node)
    attempt = node.waiting()[0]
    node.held[attempt] = "done"
    node.up()
    node.finish(attempt, body=b"value")
    assert (await world.ends())["phase"] == "Succeeded"
    assert len(node.calls) == 1


async def test_restart_takes_a_result_that_comes_before_its_node(world: World) -> None:
    await world.pool()
    await world.api.create(NODE, node_object("node-0", 0))
    node = world.node(slots=2)
    uid = await world.task(count=3)
    await world.restart(node)
    first = node.finish(body=b"result 0")
    node.up()
    assert node.acknowledged in ([], [first])
    await drive(node)
    outcomes = world.outcomes(await world.ends(), uid)
    assert {i: bytes(o.body) for i, o in outcomes.items()} == {i: f"result {i}".encode() for i in range(3)}
    assert len({header["attempt"] for header, _ in node.calls}) == 3
    node.down()
    node.up()
    await until(lambda: len(set(node.acknowledged)) == 3)


async def test_value_of_an_attempt_that_was_given_up_counts(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), world.node(1)
    uid = await world.task()
    attempt = one.waiting()[0]
    held = dict(one.held)
    one.die("HeartbeatLost")
    assert two.waiting() == [f"{uid}.0.2"]
    one.held = held
    one.finish(attempt, body=b"early")
    assert two.cancelled == [f"{uid}.0.2"]
    two.finish(error=STOPPED)
    assert bytes(world.outcomes(await world.ends())[0].body) == b"early"
    assert f"{uid}.0.2" in two.acknowledged


async def test_value_of_a_waiting_call_is_not_computed_again(world: World) -> None:
    await world.pool(nodes=2)
    one = world.node(0)
    await world.task(count=2)
    attempt = one.waiting()[0]
    held = dict(one.held)
    one.die("HeartbeatLost")
    one.held = held
    one.finish(attempt, body=b"result 0")
    two = world.node(1)
    assert [header["index"] for header, _ in two.calls] == [1]
    two.finish(body=b"result 1")
    assert (await world.ends())["phase"] == "Succeeded"


async def test_restart_dispatches_nothing_before_all_ready_nodes_answered(world: World) -> None:
    await world.pool(nodes=2)
    for rank in range(2):
        await world.api.create(NODE, node_object(f"node-{rank}", rank))
    one, two = FakeNode(world.fleet, "node-0", 0), FakeNode(world.fleet, "node-1", 1)
    await world.task()
    await world.restart(one, two)
    one.up()
    assert one.calls == []
    status = await world.says("AwaitingNodes")
    assert "asks 1 node" in status["message"]
    two.up()
    assert len(one.calls) + len(two.calls) == 1


async def test_restart_collects_from_a_node_on_its_way_down_and_sends_it_nothing(world: World) -> None:
    await world.pool(nodes=2)
    one, two = world.node(0), FakeNode(world.fleet, "node-1", 1)
    await world.task(count=2)
    await world.api.create(NODE, node_object("node-0", 0, "Draining"))
    await world.api.create(NODE, node_object("node-1", 1))
    await world.restart(one, two)
    two.up()
    assert two.calls == []  # what the other one holds is not known yet
    one.draining = True
    one.up()
    assert len(two.calls) == 1
    one.finish(body=b"first")
    two.finish(body=b"second")
    assert (await world.ends())["phase"] == "Succeeded"
    assert (len(one.calls), len(two.calls)) == (1, 1)


async def test_restart_goes_on_when_an_awaited_node_is_lost(world: World) -> None:
    await world.pool(nodes=2)
    for rank in range(2):
        await world.api.create(NODE, node_object(f"node-{rank}", rank))
    one = FakeNode(world.fleet, "node-0", 0)
    await world.task()
    await world.restart(one)
    one.up()
    world.fleet.lost(("default", "node-1"), "MachineLost")
    assert len(one.calls) == 1


async def test_restart_goes_on_when_an_awaited_node_leaves_the_api(world: World) -> None:
    await world.pool(nodes=2)
    for rank in range(2):
        await world.api.create(NODE, node_object(f"node-{rank}", rank))
    one = FakeNode(world.fleet, "node-0", 0)
    await world.task()
    await world.restart(one)
    one.up()
    await world.api.patch_status(NODE, "default", "node-1", {"phase": "Failed"})
    assert len(one.calls) == 1


async def test_restart_in_the_middle_of_a_map_runs_each_call_once_more_at_most(world: World) -> None:
    await world.pool()
    await world.api.create(NODE, node_object("node-0", 0))
    node = world.node(slots=2)
    uid = await world.task(count=50)
    for _ in range(20):
        node.finish(body=f"result {node.index_of(node.waiting()[0])}".encode())
    await until(lambda: len(node.acknowledged) == 20)
    with world.blob(uid, "results").open("ab") as file:
        file.write(b"SKYOtorn")
    await world.restart(node)
    node.up()
    await drive(node)
    status = await world.ends()
    assert status["succeededIndexes"] == "0-49"
    outcomes = world.outcomes(status, uid)
    assert {i: bytes(o.body) for i, o in outcomes.items()} == {i: f"result {i}".encode() for i in range(50)}
    assert sorted(node.items()) == [(index, 1) for index in range(50)]


async def test_restart_keeps_the_frozen_set_of_a_broadcast(world: World) -> None:
    await world.pool(nodes=2)
    for rank in range(2):
        await world.api.create(NODE, node_object(f"node-{rank}", rank))
    one, two = world.node(0), world.node(1)
    uid = await world.task(target={"mode": "All"})
    await until(lambda: one.waiting() and two.waiting())
    one.finish(body=b"first")
    await until(lambda: one.acknowledged)
    await world.restart(one, two)
    late = FakeNode(world.fleet, "node-2", 2)
    for node in (one, two, late):
        node.up()
    assert late.calls == []
    two.finish(body=b"second")
    outcomes = world.outcomes(await world.ends(), uid)
    assert [bytes(outcomes[i].body) for i in range(2)] == [b"first", b"second"]


async def test_restart_ends_what_nobody_wants_any_more(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    attempt = node.waiting()[0]
    await world.api.delete(TASK, "default", "task")
    node.cancelled.clear()
    await world.restart(node)
    node.up()
    assert node.cancelled == [attempt]


async def test_restart_drops_files_of_tasks_that_are_gone(world: World) -> None:
    stray = world.blob("0123-gone", "payload")
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    await world.restart()
    await until(lambda: not stray.parent.exists())


async def test_ended_task_that_is_deleted_with_a_cascade_goes(world: World) -> None:
    await world.pool()
    node = world.node()
    await world.task()
    node.finish()
    await world.ends()
    await world.api.patch(TASK, "default", "task", {"metadata": {"finalizers": ["foregroundDeletion"]}})
    await world.api.delete(TASK, "default", "task")
    await until(lambda: not any(plural == TASK.plural for plural, _, _ in world.api.objects))


async def test_python_of_the_nodes_counts_and_not_that_of_a_newer_image(world: World) -> None:
    await world.pool(image={"python": "3.12"})
    node = world.node(python="3.13.1")
    await world.task()
    assert len(node.calls) == 1


async def test_outdated_node_of_another_python_is_to_be_deleted(world: World) -> None:
    await world.pool(image={"python": "3.13"})
    world.node(python="3.12.4")
    await world.task()
    status = await world.ends()
    assert status["reason"] == "EnvironmentMismatch"
    assert "Python 3.12.4, of an earlier image: kubectl delete skn " in status["message"]


async def test_calls_of_one_task_run_as_their_own_options_say(world: World) -> None:
    node = world.node(slots=3)
    await world.pool()
    options = [CallOptions(run_seconds=7), CallOptions(on_exception=1, backoff_seconds=0), CallOptions()]
    package = pack_calls([b"function"], [(0, b"x")] * 3, options)
    await world.task(count=3, package=package, timeouts={"runSeconds": 90}, retry={"onException": 5})
    await until(lambda: len(node.calls) == 3)
    assert [header["timeout"] for header, _ in node.calls] == [7.0, None, None]
    attempts = node.waiting()
    for attempt in attempts:
        node.finish(attempt, error=USER_ERROR)
    await until(lambda: len(node.calls) == 4)
    assert (node.calls[-1][0]["index"], node.calls[-1][0]["number"]) == (1, 2)
    node.finish(body=b"better")
    await until(lambda: world.api.status("task").get("phase") == "Failed")
    assert world.api.status("task")["failedIndexes"] == "0,2"
