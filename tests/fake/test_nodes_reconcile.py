"""Nodes from their launch to their end: real machines, real SSH, real agents, and faults in between."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.nodes_plane import NODES, PYTHON, plane

from skyward.contract.names import FINALIZER, ssh_secret_name
from skyward.contract.reasons import next_step
from skyward.wire.envelopes import PROTOCOL
from skyward_operator.nodes.link import AgentLink
from skyward_operator.providers.errors import OutOfCapacity, UnknownOutcome
from skyward_operator.providers.local.folder import Folder

if TYPE_CHECKING:
    from tests.fake.nodes_plane import Operator, Plane

    from skyward_operator.providers.contract import CreateRequest


def call(number: int, *argv: str) -> dict[str, Any]:
    """The header of a call."""
    return {
        "attempt": f"uid.{number}.1",
        "task": "ns/t",
        "index": number,
        "number": 1,
        "entry": {"argv": list(argv)},
    }


async def run(operator: Operator, number: int, *argv: str) -> None:
    """Run a command on the node and wait for its result."""
    link = operator.nodes.fleet.link("default", "p-0-a")
    assert link is not None
    link.send_call(call(number, *argv), None)
    attempt = f"uid.{number}.1"
    await eventually(lambda: any(each["attempt"] == attempt for each in operator.listener.results), 20)


async def test_a_node_becomes_ready_runs_a_call_and_leaves_nothing() -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            status = await world.phase("Ready")
            assert status["agent"]["python"].startswith(PYTHON)
            assert status["slots"] == 1
            assert status["hostKeyFingerprint"].startswith("SHA256:")
            assert {each["type"]: each["status"] for each in status["conditions"]} == {
                "Launched": "True",
                "Bootstrapped": "True",
                "Ready": "True",
                "Interrupted": "False",
                "Drained": "Unknown",
            }
            await operator.listened(ready=1)
            (ready,) = operator.nodes.fleet.ready("default", "p")
            assert (ready.rank, ready.slots) == (0, 1)
            await run(operator, 0, "true")

            (machine,) = await world.machines()
            assert machine.tags["skyward.dev/node"] == "default/p-0-a"
            world.delete(operator)
            await world.gone()
            assert await world.machines() == []
            assert operator.listener.lost == [("p-0-a", "NodeDeleted")]
            assert operator.nodes.fleet.ready("default", "p") == []
        log = world.place.root / "logs" / "default" / "nodes" / "p-0-a.log"
        assert "::step packages" in log.read_text()


async def test_the_intent_is_durable_before_the_provider_is_asked() -> None:
    async with plane() as world:
        seen: list[dict[str, Any]] = []
        world.provider.before = lambda request: seen.append(
            {"asked": request.token, **world.status()["launch"]}
        )
        world.node()
        async with world.operator():
            await world.phase("Ready")
        (launch,) = seen
        assert launch["asked"] == launch["token"]
        assert launch["outcome"] == "Pending"
        assert launch["offer"]["provider"] == "local"


async def test_what_is_logged_of_a_node_carries_its_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="skyward_operator.nodes")
    async with plane() as world:
        world.node()
        async with world.operator():
            await world.phase("Ready")
            await eventually(lambda: any("Ready" in record.getMessage() for record in caplog.records))
    keys = [getattr(record, "object", None) for record in caplog.records if "Ready" in record.getMessage()]
    assert set(keys) == {"default/p-0-a"}


async def test_nothing_is_bought_when_the_intent_cannot_be_written() -> None:
    async with plane() as world:
        refused = world.kube.fault(method="PATCH", path="/status", status=422, reason="Invalid", times=3)
        asked: list[int] = []
        world.provider.before = lambda _: asked.append(refused.seen)
        world.node()
        async with world.operator():
            await world.phase("Ready")
        assert asked == [3]


async def test_a_lost_answer_of_the_provider_makes_no_second_machine() -> None:
    async with plane() as world:

        def lose(_: CreateRequest) -> None:
            if world.provider.creates == 1:
                raise UnknownOutcome("connection reset")

        world.provider.after = lose
        world.node()
        async with world.operator():
            await world.phase("Ready")
            assert world.provider.creates == 2
            assert len(await world.machines()) == 1


@pytest.mark.parametrize("writes", range(1, 8))
async def test_a_crash_after_any_write_leaves_one_machine_that_becomes_ready(writes: int) -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            await world.written(writes)
            operator.nodes.controller.queue.close()
        async with world.operator():
            await world.phase("Ready")
            assert len(await world.machines()) == 1


async def test_a_restarted_operator_resumes_without_a_bootstrap_and_learns_what_is_held() -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as first:
            await world.phase("Ready")
            await first.listened(ready=1)
            await run(first, 7, "true")
            boot = world.status()["agent"]["bootId"]
        log = world.place.root / "logs" / "default" / "nodes" / "p-0-a.log"
        before = log.read_text().count("::step")
        writes = world.kube.count("PATCH", "/status")
        async with world.operator() as second:
            await second.listened(ready=1)
            (node,) = second.listener.ready
            assert node.boot_id == boot
            assert node.held == {"uid.7.1": "done"}
            await run(second, 8, "true")
            assert any(each["attempt"] == "uid.7.1" for each in second.listener.results)
        assert log.read_text().count("::step") == before
        assert world.kube.count("PATCH", "/status") == writes


async def test_a_package_that_does_not_exist_fails_the_node_and_releases_its_machine() -> None:
    async with plane() as world:
        world.node(pip=["no-such-package-4711"])
        async with world.operator() as operator:
            status = await world.phase("Failed")
            assert status["reason"] == "PackageNotFound"
            assert status["message"] == "pip: no-such-package-4711 was not found in the package registry"
            assert "no-such-package-4711" in status["bootstrap"]["log"]
            await eventually(lambda: "endTime" in world.status()["billing"], 20)
            assert await world.machines() == []
            assert world.status()["phase"] == "Failed"
            world.delete(operator)
            await world.gone()
            assert operator.listener.ready == []


async def test_an_agent_of_another_version_that_cannot_be_replaced_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("skyward_operator.nodes.link.PROTOCOL", PROTOCOL + 1)
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            status = await world.phase("Failed")
            assert status["reason"] == "AgentMismatch"
            refusal = f"this agent speaks protocol {PROTOCOL}, not {PROTOCOL + 1}"
            assert status["message"].startswith("the agent on the machine is of another version")
            assert refusal in status["message"]
            assert "delete the node" in next_step(status["reason"])
            assert operator.listener.ready == []
            await eventually(lambda: "endTime" in world.status()["billing"], 20)
        log = world.place.root / "logs" / "default" / "nodes" / "p-0-a.log"
        assert "the agent is of another version; replacing it" in log.read_text()


async def test_an_agent_of_another_version_is_replaced_on_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as first:
            await world.phase("Ready")
            await first.listened(ready=1)
        real, said = AgentLink.hello, iter([PROTOCOL + 1])

        async def hello(link: AgentLink, *arguments: Any) -> Any:
            """The first word of this operator is one that the agent does not understand."""
            monkeypatch.setattr("skyward_operator.nodes.link.PROTOCOL", next(said, PROTOCOL))
            return await real(link, *arguments)

        monkeypatch.setattr(AgentLink, "hello", hello)
        async with world.operator() as second:
            await second.listened(ready=1)
            await run(second, 1, "true")
            assert second.listener.lost == []
            assert world.status()["phase"] == "Ready"


async def test_a_machine_that_dies_is_noticed_at_once() -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            await operator.listened(ready=1)
            kill_machine(world)
            await operator.listened(lost=1, seconds=10)
            assert operator.listener.lost == [("p-0-a", "MachineLost")]
            status = await world.phase("Failed")
            assert status["reason"] == "MachineLost"
            await eventually(lambda: not list((world.place.root / "vms").glob("local-*")), 20)


async def test_an_agent_that_dies_is_started_again_on_the_same_machine() -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            await operator.listened(ready=1)
            (machine,) = await world.machines()
            home = Folder(world.place.root / "vms", machine.id).home
            kill = await asyncio.create_subprocess_exec("pkill", "-9", "-f", f"skyward.agent .*{home}")
            await kill.wait()
            await operator.listened(ready=2, seconds=20)
            first, second = operator.listener.ready
            assert first.boot_id != second.boot_id
            assert operator.listener.lost == []
            await run(operator, 3, "true")
            assert world.status()["phase"] == "Ready"


async def test_a_refused_offer_is_followed_by_the_next_under_another_token() -> None:
    async with plane() as world:
        tokens: list[str] = []

        def refuse(request: CreateRequest) -> None:
            tokens.append(request.token)
            if request.offer.instance_type == "local":
                raise OutOfCapacity("none left")

        world.provider.before = refuse
        world.provider.extra_offers = ["other"]
        world.node()
        async with world.operator():
            status = await world.phase("Ready")
            assert status["launch"]["attempt"] == 2
            assert status["launch"]["offer"]["instanceType"] == "other"
            assert len(set(tokens)) == 2


async def test_a_node_without_any_capacity_waits_and_says_so() -> None:
    async with plane() as world:

        def refuse(_: CreateRequest) -> None:
            raise OutOfCapacity("none left anywhere")

        world.provider.before = refuse
        world.node()
        async with world.operator():
            await eventually(
                lambda: (
                    (world.status().get("phase"), world.status().get("message"))
                    == ("Pending", "none left anywhere")
                ),
                20,
            )
            status = world.status()
            assert (status["phase"], status["reason"]) == ("Pending", "InsufficientCapacity")


async def test_a_host_key_that_the_provider_does_not_know_is_pinned_on_first_use() -> None:
    async with plane() as world:
        world.provider.shown_host_key = lambda _: None
        world.node()
        async with world.operator():
            status = await world.phase("Ready")
        (machine,) = await world.machines()
        assert status["hostKey"] == machine.host_key
        assert status["hostKeyFingerprint"].startswith("SHA256:")


async def test_a_host_key_that_is_none_is_not_taken_for_unknown(caplog: pytest.LogCaptureFixture) -> None:
    async with plane() as world:
        shown: list[str | None] = ["ssh-ed25519 garbage"]
        world.provider.shown_host_key = lambda key: shown[0] if shown else key
        world.node()
        async with world.operator():
            await eventually(lambda: "is no SSH key" in caplog.text)
            assert "hostKey" not in world.status()
            shown.clear()
            status = await world.phase("Ready")
            (machine,) = await world.machines()
            assert status["hostKey"] == machine.host_key


async def test_a_machine_with_another_host_key_than_the_pinned_one_is_refused() -> None:
    async with plane() as world:
        world.node()
        async with world.operator():
            await world.phase("Ready")
        other = await world.place.machine()
        obj = world.get()
        assert obj is not None
        world.kube.put(NODES, obj | {"status": obj["status"] | {"hostKey": other.host_key}})
        async with world.operator() as operator:
            status = await world.phase("Failed")
            assert status["reason"] == "HostKeyMismatch"
            assert operator.listener.lost == [("p-0-a", "HostKeyMismatch")]


@pytest.mark.parametrize("phase", ["Launching", "Connecting", "Bootstrapping"])
async def test_a_node_deleted_on_its_way_leaves_nothing(phase: str) -> None:
    async with plane() as world:
        world.node(pip=["numpy"])
        async with world.operator() as operator:
            await world.phase(phase, "Ready")
            world.delete(operator)
            await world.gone()
            assert await world.machines() == []


async def test_a_node_without_finalizer_gets_it_before_anything_is_bought() -> None:
    async with plane() as world:
        world.node()
        obj = world.get()
        assert obj is not None
        bare = {key: value for key, value in obj["metadata"].items() if key != "finalizers"}
        world.kube.put(NODES, obj | {"metadata": bare})
        held: list[list[str]] = []
        world.provider.before = lambda _: held.append((world.get() or {})["metadata"]["finalizers"])
        async with world.operator():
            await world.phase("Ready")
        assert held == [[FINALIZER]]


async def test_one_key_per_pool_is_kept_in_a_secret_that_the_pool_owns() -> None:
    async with plane() as world:
        world.node()
        world.node("p-1-b")
        async with world.operator():
            await world.phase("Ready")
            await world.phase("Ready", name="p-1-b")
        (name,) = world.kube.objects["/api/v1/namespaces/default/secrets"]
        assert name == ssh_secret_name("p", "pool-uid")
        secret = world.kube.objects["/api/v1/namespaces/default/secrets"][name]
        assert secret["metadata"]["ownerReferences"][0]["uid"] == "pool-uid"
        assert set(secret["data"]) == {"ssh-privatekey", "ssh-publickey"}


def kill_machine(world: Plane) -> None:
    """As when the power of the only machine fails."""
    root = world.place.root / "vms"
    (path,) = [path for path in root.iterdir() if path.name.startswith("local-")]
    running = Folder(root, path.name).running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)


WATCHFUL = """
def watch():
    import time
    from skyward.runtime import current
    while (why := current().stopping) is None:
        time.sleep(0.01)
    return [why, current().seconds_left > 0]
"""


async def test_an_agent_that_was_away_when_its_machine_was_announced_is_told_when_it_is_back() -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            operator.listener.has_calls.add("p-0-a")
            await world.phase("Ready")
            await operator.listened(ready=1)
            session = operator.nodes.fleet.session(("default", "p-0-a"))
            link = operator.nodes.fleet.link("default", "p-0-a")
            assert session is not None
            assert isinstance(link, AgentLink)
            entry = {"source": WATCHFUL, "name": "watch"}
            link.send_call(call(0) | {"entry": entry}, None)
            await eventually(lambda: operator.listener.began, 20)
            link.close("cut by the test")
            session.cordon(60.0)
            await eventually(lambda: operator.listener.results, 30)
            assert operator.listener.results[0]["value"] == ["preempted", True]
            assert operator.listener.ready[-1].draining
