"""Each part is killed while a person's program runs: every result arrives, and nothing is left running."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.chaos.scene import Plane, Program, eventually, own_plane, programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def one_plane() -> Iterator[Plane]:
    """A control plane with an operator, for all tests of this module: each is to leave it whole."""
    with own_plane() as subject:
        yield subject


@pytest.fixture
def plane(one_plane: Plane) -> Iterator[Plane]:
    """The control plane, whole again; nothing may be left in it afterwards."""
    one_plane.up()
    yield one_plane
    assert not one_plane.left()


@pytest.fixture
def run(plane: Plane) -> Iterator[Callable[..., Program]]:
    """Starts the program; it ends with the test, and so does its pool."""

    def make(calls: int = 30, seconds: float = 0.1, padding: int = 0, way: str = "whole") -> Program:
        return Program(plane, calls, seconds, padding, way)

    with programs(make) as start:
        yield start


def pid_of(processes: list[psutil.Process]) -> int:
    """The first one."""
    return min(process.pid for process in processes)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice in a row"])
def test_operator(plane: Plane, run: Callable[..., Program], times: int) -> None:
    """The agents go on and keep results; the next operator adopts and collects: nothing runs twice."""
    program = run(padding=5000 * (times - 1)).reaches(8)
    for _ in range(times):
        victim = plane.kill("operator")
        plane.comes_back("operator", victim)
    program.comes_right(repeated=0)
    print(f"the longest time in which no call began: {program.gap():.1f} s")
    shown = [program.output().count(f"printed by call {index}.") for index in range(program.calls)]
    assert max(shown) == 1
    # what was on its way at the moment of a kill may be lost: what two nodes printed in a moment
    assert shown.count(0) <= 4 * times


@pytest.mark.parametrize("padding", [0, 5000], ids=["small", "large"])
def test_operator_in_mid_stream(plane: Plane, run: Callable[..., Program], padding: int) -> None:
    """What the caller has it keeps; the next operator sends the rest: each result once, and in order."""
    program = run(calls=40, padding=padding, way="stream")
    for received in (5, 15):
        program.says(f"received {received} results.")
        assert "received 40 results." not in program.output()
        victim = plane.kill("operator")
        plane.comes_back("operator", victim)
    program.comes_right(repeated=0)


def test_api_server_in_mid_stream(plane: Plane, run: Callable[..., Program]) -> None:
    """Results come from the operator: they go on while the API server is away."""
    program = run(calls=40, way="stream")
    program.says("received 5 results.")
    victim = plane.kill("kube-apiserver")
    plane.comes_back("kube-apiserver", victim)
    program.comes_right(repeated=0)


def test_operator_while_a_payload_is_sent(plane: Plane, run: Callable[..., Program]) -> None:
    """The next operator's gateway is elsewhere: the program finds it and sends the bytes there."""
    program = run(padding=5000)
    eventually(program.is_ready, "the pool takes calls")
    plane.kill("operator")
    program.comes_right(repeated=0)


def test_operator_while_a_node_drains(plane: Plane, run: Callable[..., Program]) -> None:
    """The next one lets the node finish as well, and collects from it: nothing is repeated."""
    program = run(calls=6, seconds=3.0).reaches(2)
    plane.kubectl("scale", "skp", program.pool, "--replicas=1")
    eventually(lambda: "Draining" in program.phases(), "a node drains")
    plane.kill("operator")
    assert "Draining" in program.phases()
    eventually(lambda: len(program.nodes()) == 1, "one node is left")
    plane.kubectl("scale", "skp", program.pool, "--replicas=2")
    program.comes_right(repeated=0)


def test_operator_of_an_elastic_pool(plane: Plane, run: Callable[..., Program]) -> None:
    """The next one does not know at first what runs, and releases no node: the idle time is nothing here."""
    program = run(calls=8, seconds=4.0).reaches(2)
    elastic = '{"spec": {"nodes": {"desired": 0, "max": 2}, "lifetime": {"idleSeconds": 0}}}'
    plane.kubectl("patch", "skp", program.pool, "--type=merge", "-p", elastic)
    before = {node["metadata"]["name"] for node in program.nodes()}
    for _ in range(2):
        victim = plane.kill("operator")
        plane.comes_back("operator", victim)
        assert {node["metadata"]["name"] for node in program.nodes()} == before
    program.comes_right(repeated=0)


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_server_of_the_control_plane(plane: Plane, run: Callable[..., Program], component: str) -> None:
    """Calls that are with the agents go on; the rest waits until the server is back."""
    program = run().reaches(8)
    victim = plane.kill(component)
    plane.comes_back(component, victim)
    program.comes_right(repeated=0)
    print(f"the longest time in which no call began: {program.gap():.1f} s")


def test_supervisor(plane: Plane, run: Callable[..., Program]) -> None:
    """What it looked after goes on without it; the next `up` replaces it all, and nothing is lost."""
    program = run().reaches(8)
    plane.kill("supervisor")
    plane.up()
    program.comes_right(repeated=0)
    print(f"the longest time in which no call began: {program.gap():.1f} s")


def test_agent(plane: Plane, run: Callable[..., Program]) -> None:
    """It is started again on its node; the call that it ran is repeated."""
    program = run().reaches(8)
    os.kill(pid_of(plane.inside("skyward.agent")), signal.SIGKILL)
    program.comes_right(repeated=1)
    program.has_interruptions("AgentRestarted")
    print(f"the longest time in which no call began: {program.gap():.1f} s")


def test_worker(plane: Plane, run: Callable[..., Program]) -> None:
    """It counts as a failure of the call, which the program allows two of."""
    program = run().reaches(8)
    os.kill(pid_of(plane.inside("skyward.agent.worker")), signal.SIGKILL)
    program.comes_right(repeated=1)
    (trace,) = program.task()["status"]["attempts"]["recent"]
    assert trace["cause"] == "WorkerDied"


def test_whole_machine(plane: Plane, run: Callable[..., Program]) -> None:
    """Its node is replaced, its calls are repeated elsewhere, and the Task says so."""
    program = run().reaches(8)
    before = {node["metadata"]["name"] for node in program.nodes()}
    for process in next(iter(plane.machines().values())):
        process.kill()
    program.comes_right(repeated=1)
    nodes = program.has_interruptions("MachineLost")
    assert nodes < before
    print(f"the longest time in which no call began: {program.gap():.1f} s")


def test_client(plane: Plane, run: Callable[..., Program]) -> None:
    """The pool stays until somebody takes it down, and everybody can see it."""
    program = run(calls=40).reaches(8)
    program.send(signal.SIGKILL)
    program.end()
    assert program.pool in plane.person.run("skyward", "pools").stdout
    down = plane.person.run("skyward", "down", program.pool)
    assert down.returncode == 0, down.stdout + down.stderr
    assert "nothing left running" in down.stdout
    assert not plane.left()


def test_ctrl_c_once(plane: Plane, run: Callable[..., Program]) -> None:
    """Everything is cancelled, released, and proved gone."""
    program = run(calls=200).reaches(8)
    program.send(signal.SIGINT)
    assert program.end() != 0
    assert "nothing left running" in program.output()
    assert not plane.left()
    assert program.task()["status"]["phase"] == "Cancelled"


def test_ctrl_c_twice(plane: Plane, run: Callable[..., Program]) -> None:
    """The person is told how to finish later; the operator finishes anyway."""
    program = run(calls=20, seconds=20.0).reaches(2)
    program.send(signal.SIGINT)
    program.says("press Ctrl-C again")
    program.send(signal.SIGINT)
    assert program.end() != 0
    assert f"skyward down {program.pool}" in program.output()
    assert plane.person.run("skyward", "down", program.pool).returncode == 0
    assert not plane.left()


def test_pool_is_deleted_while_it_is_made(plane: Plane, run: Callable[..., Program]) -> None:
    """Nothing is left of a pool that was never ready, and its program hears of it."""
    program = run()
    eventually(program.nodes, "the pool has nodes")
    plane.kubectl("delete", "skp", program.pool, "--wait=false")
    assert program.end() != 0
    assert "deleted" in program.output()
    eventually(lambda: not plane.left(), "nothing is left")


def test_task_is_deleted_while_it_runs(plane: Plane, run: Callable[..., Program]) -> None:
    """The work really stops: its workers are ended, and no further call begins."""
    program = run(calls=6, seconds=60.0).reaches(2)
    workers = plane.inside("skyward.agent.worker")
    busy = {int(line.split()[2]) for line in program.ledger.read_text().splitlines()}
    assert busy <= {worker.pid for worker in workers}
    plane.kubectl("delete", "task", program.task()["metadata"]["name"], "--wait=false")
    assert program.end() != 0
    assert "was deleted" in program.output()
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in busy), "the workers have ended")
    assert len(program.lines()) == 2


def test_pool_is_scaled_while_a_map_runs(plane: Plane, run: Callable[..., Program]) -> None:
    """Down to one node and up to two again: calls on the node that leaves finish, and none is lost."""
    program = run(calls=70, seconds=0.2).reaches(4)
    plane.kubectl("scale", "skp", program.pool, "--replicas=1")
    eventually(lambda: len(program.nodes()) == 1, "one node is left")
    plane.kubectl("scale", "skp", program.pool, "--replicas=2")
    eventually(lambda: len(program.nodes()) == 2, "there are two again")
    program.comes_right(repeated=0)
