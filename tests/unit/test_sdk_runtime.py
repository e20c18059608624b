"""What a function sees of itself while it runs."""

from __future__ import annotations

import threading

import pytest

import skyward as sky
from skyward.runtime import AcceleratorInfo, PeerInfo, call

CONTEXT = {
    "node": 1,
    "worker": 1,
    "total_nodes": 3,
    "workers_per_node": 2,
    "rank": 4,
    "pool": "demo",
    "peers": [{"node": 0, "private_ip": "10.0.0.1", "colour": "unknown to this version"}],
    "accelerator": {"type": "A100", "count": 8},
    "head_addr": "10.0.0.1",
    "task": "ns/train-1",
    "index": 5,
    "number": 2,
    "made_up_later": True,
    "ip": None,
}


def test_instance_info_reads_the_context_and_ignores_what_it_does_not_know() -> None:
    with call(CONTEXT):
        info = sky.instance_info()
    assert (info.node, info.rank, info.total_nodes, info.pool) == (1, 4, 3, "demo")
    assert info.peers == (PeerInfo(0, "10.0.0.1"),)
    assert info.accelerator == AcceleratorInfo("A100", 8)
    assert (info.global_worker_index, info.total_workers) == (3, 6)
    assert info.ip == ""
    assert info.hostname


def test_exactly_one_worker_is_the_head() -> None:
    places = [(node, worker) for node in range(3) for worker in range(2)]
    infos = [sky.InstanceInfo(node=n, worker=w, total_nodes=3, workers_per_node=2) for n, w in places]
    assert [sky.is_head(info) for info in infos] == [True, False, False, False, False, False]


def test_current_tells_which_call_and_whether_it_is_being_stopped() -> None:
    context = dict(CONTEXT)
    with call(context):
        now = sky.current()
        assert (now.task, now.index, now.attempt, now.stopping) == ("ns/train-1", 5, 2, None)
        context["stopping"] = "timeout"
        assert now.stopping == "timeout"


def test_outside_a_call_the_error_says_where_it_works() -> None:
    for ask in (sky.instance_info, sky.current, sky.is_head):
        with pytest.raises(RuntimeError, match=r"inside a @sky\.function"):
            ask()


def test_two_threads_have_their_own_calls() -> None:
    seen: list[int] = []

    def run(node: int) -> None:
        with call({"node": node}):
            seen.append(sky.instance_info().node)

    threads = [threading.Thread(target=run, args=(node,)) for node in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1, 2, 3]
