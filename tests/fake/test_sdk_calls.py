"""Calls through the operators, against a control plane in this process."""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.sdk_plane import NODES, POOLS, TASKS, FakePlane

import skyward as sky
from skyward.cluster.gateway import Gateway
from skyward.contract.task import Task
from skyward.image import client_python
from skyward.manifest import INLINE_LIMIT
from skyward.wire.package import CallPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyward.pools import Pool

SILENT = sky.Options(console="silent")


@pytest.fixture
def pool(plane: FakePlane) -> Iterator[Pool]:
    with sky.Compute(provider=sky.Local(), nodes=2, options=SILENT) as pool:
        yield pool


@sky.function
def as_text(value: Any) -> str:
    """The argument in words."""
    return str(value)


@sky.function
def add(a: Any, b: Any = 1) -> Any:
    return a + b


@sky.function
def place() -> tuple[int, int, list[int]]:
    info = sky.instance_info()
    return info.node, info.total_nodes, sky.shard(list(range(7)))


@sky.function
def fail(kind: type[Exception], *words: str) -> None:
    raise kind(*words)


def _creates(plane: FakePlane) -> int:
    return plane.count("POST", "/tasks")


class Times:
    """Something to call that is no function."""

    def __call__(self, number: int) -> int:
        return number * 10


def test_what_is_called_need_not_be_a_function(plane: FakePlane, pool: Pool) -> None:
    assert pool.map(functools.partial(pow, 2), [1, 2, 3]) == [2, 4, 8]
    assert pool.map(Times(), [1, 2]) == [10, 20]
    assert sorted(name.rsplit("-", 1)[0] for name in plane.names(TASKS)) == ["pow", "times"]


def test_one_expression_is_one_task(plane: FakePlane, pool: Pool) -> None:
    assert add(1, b=2) >> pool == 3
    assert _creates(plane) == 1
    assert ((add(1) & add("a", "b")) >> pool) == (2, "ab")
    assert _creates(plane) == 2
    assert (sky.gather(*[add(i) for i in range(10)]) >> sky) == tuple(range(1, 11))
    assert _creates(plane) == 3
    assert pool.map(lambda number: number**2, range(50)) == [n * n for n in range(50)]
    assert _creates(plane) == 4
    assert place() @ pool == [(0, 2, [0, 2, 4, 6]), (1, 2, [1, 3, 5])]
    assert _creates(plane) == 5


def test_tasks_fit_the_contract_and_carry_the_ticket_of_the_pool(plane: FakePlane, pool: Pool) -> None:
    add(1) >> pool
    place() @ pool
    tasks = [Task.model_validate(task) for task in plane.objects[TASKS].values()]
    assert [task.spec.target.mode for task in tasks] == ["Any", "All"]
    assert all(task.spec.pool_ref.name == pool.name for task in tasks)
    assert all(task.spec.calls is not None and task.spec.calls.python == client_python() for task in tasks)
    assert len({task.spec.ticket_hash for task in tasks}) == 1
    assert tasks[0].metadata.name.startswith("add-")


def test_nothing_is_sent_for_an_empty_map(plane: FakePlane, pool: Pool) -> None:
    assert pool.map(add, []) == []
    assert _creates(plane) == 0


def test_a_decorated_function_maps_with_its_timeout(plane: FakePlane, pool: Pool) -> None:
    @sky.function(timeout=90)
    def double(number: int) -> int:
        return number * 2

    assert pool.map(double, [1, 2]) == [2, 4]
    assert plane.only(TASKS)["spec"]["timeouts"] == {"runSeconds": 90}


def test_map_takes_items_one_by_one_and_keeps_none(plane: FakePlane, pool: Pool) -> None:
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    most = 0

    class Item:
        def __reduce__(self) -> tuple[type[int], tuple[int]]:
            return int, (len(alive),)

    class Items:
        def __len__(self) -> int:
            return 1000

        def __iter__(self) -> Iterator[Item]:
            nonlocal most
            for _ in range(len(self)):
                item = Item()
                alive.add(item)
                most = max(most, len(alive))
                yield item
                del item

    assert len(pool.map(lambda number: number, Items())) == 1000
    assert most <= 2


def test_map_of_a_function_that_takes_no_item_is_refused_here(plane: FakePlane, pool: Pool) -> None:
    @sky.function
    def takes_none() -> None:
        pass

    with pytest.raises(TypeError, match=r"takes_none\(\).*: too many positional arguments"):
        pool.map(takes_none, [1])  # type: ignore[arg-type]
    assert _creates(plane) == 0


def test_members_with_timeouts_of_their_own_keep_them(plane: FakePlane, pool: Pool) -> None:
    group = add(1).with_timeout(60) & add(2) & add(3).with_timeout(60)
    assert (group >> pool) == (2, 3, 4)
    assert _creates(plane) == 1
    assert "timeouts" not in plane.only(TASKS)["spec"]
    package = CallPackage(base64.b64decode(plane.only(TASKS)["spec"]["calls"]["package"]))
    options = [package.options(index) for index in range(3)]
    assert [each.run_seconds for each in options if each is not None] == [60, 0, 60]
    assert (group > pool).result() == (2, 3, 4)
    with pytest.raises(ValueError, match="queue time-outs differ"):
        (add(1).with_queue_timeout(5) & add(2)) >> pool
    assert ((add(1).with_queue_timeout(5) & add(2)).with_queue_timeout(9) >> pool) == (2, 3)


def test_a_target_pins_the_call(plane: FakePlane, pool: Pool) -> None:
    pool.run(add(1), target="head")
    pool.run(add(1), target=1)
    targets = [task["spec"]["target"] for task in plane.objects[TASKS].values()]
    assert targets == [{"mode": "Head"}, {"mode": "Rank", "rank": 1}]
    for wrong in (-1, "tail", True):
        with pytest.raises((TypeError, ValueError), match="target is 'head' or the rank"):
            pool.run(add(1), target=wrong)  # type: ignore[arg-type]


def test_large_arguments_and_results_go_through_the_gateway(plane: FakePlane, pool: Pool) -> None:
    import numpy as np

    array = np.arange(100_000, dtype=np.float64)
    result = add(array) >> pool
    assert (result == array + 1).all()
    task = plane.only(TASKS)
    assert "package" not in task["spec"]["calls"]
    # what the Task speaks for is the package; the array stands behind it
    assert task["spec"]["calls"]["blob"]["sizeBytes"] < INLINE_LIMIT
    assert len(next(iter(plane.payloads.values()))) > INLINE_LIMIT
    assert plane.count("PUT", "/payload") == 1
    assert plane.count("GET", "/result") == 1


def test_futures_resolve_and_can_be_awaited(pool: Pool) -> None:
    future = add(1) > pool
    assert future.result(10) == 2
    assert ((add(1) & add(2)) > pool).result(10) == (2, 3)

    async def inside_a_loop() -> tuple[int, int]:
        first, second = pool.run_async(add(1)), pool.run_async(add(2))
        return await first, await second

    assert asyncio.run(inside_a_loop()) == (2, 3)


def test_a_stream_whose_task_ends_badly_raises(plane: FakePlane, pool: Pool) -> None:
    assert list(sky.gather(*[add(i) for i in range(4)], stream=True) >> pool) == [1, 2, 3, 4]
    before = set(plane.names(TASKS))
    plane.answer = lambda *_: {"phase": "Running"}
    results = sky.gather(add(10), add(20), stream=True, ordered=False) >> pool
    (name,) = set(plane.names(TASKS)) - before
    plane.change(TASKS, name, phase="Failed", reason="NodeLost", message="gone")
    with pytest.raises(sky.NodeLost):
        next(results)


def test_the_functions_own_exception_arrives_as_itself(pool: Pool) -> None:
    with pytest.raises(KeyError, match="nothing") as caught:
        fail(KeyError, "nothing") >> pool
    assert isinstance(caught.value.__cause__, sky.RemoteTraceback)
    assert "in fail" in str(caught.value.__cause__)
    assert "test_sdk_calls.py" in str(caught.value.__cause__)
    with pytest.raises(OSError, match="future"):
        (fail(OSError, "future") > pool).result(10)


def test_one_failure_of_a_map_raises_and_says_which(pool: Pool) -> None:
    def odd(number: int) -> int:
        return 1 // (number % 3)

    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(odd, range(1, 8))
    assert caught.value.__notes__[-1] == "2 of 7 calls failed (2,5); this is call 2"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("RunTimeout", sky.TaskTimeout),
        ("QueueTimeout", sky.QueueTimeout),
        ("WorkerDied", sky.WorkerDied),
        ("NodeLost", sky.NodeLost),
        ("Indeterminate", sky.Indeterminate),
        ("PoolDeleted", sky.PoolDeleted),
        ("ResultNotPicklable", sky.ResultNotPicklable),
    ],
)
def test_each_bad_end_has_its_error(
    plane: FakePlane, pool: Pool, reason: str, kind: type[sky.SkywardError]
) -> None:
    plane.answer = lambda *_: {"phase": "Failed", "reason": reason, "message": "it ended badly"}
    with pytest.raises(kind, match="it ended badly") as caught:
        add(1) >> pool
    assert caught.value.task == plane.only(TASKS)["metadata"]["name"]
    assert caught.value.remedy


def test_what_cannot_be_pickled_is_named_and_nothing_is_created(plane: FakePlane, pool: Pool) -> None:
    lock = threading.Lock()

    @sky.function
    def use_the_lock() -> None:
        lock.acquire()

    with pytest.raises(sky.NotPicklable, match=r"use_the_lock\(\) cannot be sent .*'lock'"):
        use_the_lock() >> pool
    with pytest.raises(sky.NotPicklable, match=r"an argument of add\(\) .*argument 'b'.*lock"):
        add(1, b={"key": lock}) >> pool
    assert _creates(plane) == 0


def test_call_that_cannot_be_pickled_fails_alone(plane: FakePlane, pool: Pool) -> None:
    items = [1, threading.Lock(), 3, {"key": [threading.Lock()]}]
    values = pool.map(as_text, items, on_error="return")
    assert (values[0], values[2]) == ("1", "3")
    assert [type(values[index]) for index in (1, 3)] == [sky.NotPicklable] * 2
    assert re.search(r"call 3 of as_text\(\) .*argument 1: \['key'\]\[0\] \(a _thread.lock\)", str(values[3]))
    with pytest.raises(sky.NotPicklable, match=r"call 1 of as_text\(\)") as caught:
        pool.map(as_text, items)
    assert caught.value.__notes__ == ["2 of 4 calls failed (1,3); this is call 1"]
    assert "on node" not in str(caught.value)
    assert "pass plain data" in str(caught.value.remedy).lower()
    one, two = sky.gather(as_text(threading.Lock()), as_text(2), on_error="return") >> pool
    assert (type(one), two) == (sky.NotPicklable, "2")
    streamed = list(sky.gather(*map(as_text, items), stream=True, on_error="return") >> pool)
    assert [type(each) for each in streamed] == [str, sky.NotPicklable] * 2


def test_arguments_over_the_limit_are_refused_with_a_remedy(
    plane: FakePlane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.refuse_payload = 413
    with pytest.raises(sky.ArgumentTooLarge, match="more than 1 GiB") as caught:
        add(os.urandom(200_000), b"") >> pool
    assert "volume or object store" in str(caught.value)
    assert plane.only(TASKS)["spec"]["cancel"] is True
    monkeypatch.setenv("SKYWARD_LARGEST_PAYLOAD", "1000")
    with pytest.raises(sky.ArgumentTooLarge, match="one task may take 1,000 bytes"):
        add(os.urandom(2000), b"") >> pool
    monkeypatch.setenv("SKYWARD_LARGEST_PAYLOAD", "1 GB")
    with pytest.raises(ValueError, match="must be a whole number of bytes"):
        add(os.urandom(2000), b"") >> pool


def test_another_python_minor_is_refused_before_anything_is_sent(plane: FakePlane) -> None:
    other = "3.12" if client_python() != "3.12" else "3.13"
    image = sky.Image(python=other)
    with (
        pytest.raises(sky.EnvironmentMismatch, match=other) as error,
        sky.Compute(provider=sky.Local(), image=image, options=SILENT),
    ):
        pass
    assert f"sky.Image(python='{client_python()}')" in str(error.value)
    assert not plane.names(POOLS)


def test_another_python_minor_of_a_pool_that_exists_is_refused_before_the_wait(
    plane: FakePlane, pool: Pool
) -> None:
    other = "3.12" if client_python() != "3.12" else "3.13"
    plane.objects[POOLS][pool.name]["spec"]["image"]["python"] = other
    with (
        pytest.raises(sky.EnvironmentMismatch, match=f"pool {pool.name}.*{other}"),
        sky.Compute(name=pool.name, options=SILENT),
    ):
        raise AssertionError("it is not entered")
    assert _creates(plane) == 0


def test_the_python_of_the_nodes_counts_and_not_that_of_a_newer_image(plane: FakePlane, pool: Pool) -> None:
    other = "3.12" if client_python() != "3.12" else "3.13"
    for node in plane.objects[NODES].values():
        node["status"]["agent"] = {"python": f"{other}.4"}
    with (
        sky.Compute(name=pool.name, options=SILENT) as same,
        pytest.raises(sky.EnvironmentMismatch, match=f"kubectl delete skn {pool.name}-"),
    ):
        add(1) >> same
    assert _creates(plane) == 0
    plane.objects[POOLS][pool.name]["spec"]["image"]["python"] = other
    for node in plane.objects[NODES].values():
        node["status"]["agent"] = {"python": f"{client_python()}.1"}
    with sky.Compute(name=pool.name, options=SILENT) as same:
        add(1) >> same
    assert _creates(plane) == 1


def test_a_future_that_is_cancelled_stops_the_remote_work(plane: FakePlane, pool: Pool) -> None:
    plane.answer = lambda *_: {"phase": "Running", "counts": {"total": 1, "running": 1}}
    future = add(1) > pool
    assert future.cancel()
    assert future.cancelled()
    assert plane.only(TASKS)["spec"]["cancel"] is True
    plane.on_loop(eventually(lambda: plane.only(TASKS)["status"]["phase"] == "Cancelled"))


def test_a_task_that_somebody_cancels_or_deletes_says_so(plane: FakePlane, pool: Pool) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    future = add(1) > pool
    name = plane.names(TASKS)[0]
    plane.change(TASKS, name, phase="Cancelled", reason="Cancelled", message="cancelled as asked")
    with pytest.raises(sky.TaskCancelled, match="as asked"):
        future.result(10)
    future = add(1) > pool
    plane.drop(TASKS, plane.names(TASKS)[1])
    with pytest.raises(sky.TaskCancelled, match="was deleted"):
        future.result(10)


def test_a_refused_task_says_what_the_server_said(plane: FakePlane, pool: Pool) -> None:
    plane.fault(method="POST", path="/tasks", status=422, reason="Invalid")
    with pytest.raises(sky.TaskError, match="the call was refused"):
        add(1) >> pool
    assert add(1) >> pool == 2


def test_a_lost_answer_to_a_create_makes_one_task(plane: FakePlane, pool: Pool) -> None:
    plane.fault(method="POST", path="/tasks", lose_answer=True)
    assert add(1) >> pool == 2
    assert len(plane.names(TASKS)) == 1


def test_defaults_of_the_pool_reach_every_task(plane: FakePlane) -> None:
    options = sky.Options(
        console="silent", default_compute_timeout=300, retry_on_interruption=0, result_ttl=3600
    )
    with sky.Compute(provider=sky.Local(), options=options) as pool:
        add(1) >> pool
        spec = plane.only(TASKS)["spec"]
    assert spec["timeouts"] == {"runSeconds": 300}
    assert spec["retry"]["onInterruption"] == 0
    assert spec["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize("ttl", [86_400, None])
def test_a_group_of_differing_calls_is_kept_as_long_as_the_pool_says(
    plane: FakePlane, ttl: int | None
) -> None:
    options = sky.Options(console="silent", result_ttl=ttl)
    with sky.Compute(provider=sky.Local(), options=options) as pool:
        sky.gather(add(1).with_timeout(50), add(2).with_timeout(60)) >> pool
        assert plane.only(TASKS)["spec"].get("ttlSecondsAfterFinished") == ttl


def test_remote_output_reaches_the_terminal_by_node(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = threading.Event()
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        original = pool._entered()[0].console.remote

        def notice(prefix: str, text: str, stream: Any) -> None:
            original(prefix, text, stream)
            if text == "last":
                printed.set()

        pool._entered()[0].console.remote = notice  # type: ignore[method-assign]
        add(1) >> pool
        assert pool._entered()[0]._logs.connected.wait(10)
        name = plane.names(TASKS)[0]
        plane.log(name, "epoch 1\nepoch 2\n", rank=1)
        plane.log(name, "careful\n", rank=0, stream="stderr")
        plane.log(name, "la", rank=1)
        plane.log(name, "st", rank=1)
        plane.log_done(name)
        assert printed.wait(10)
        printed.clear()
        plane.cut_logs()  # the stream breaks, and begins again with what was there
        plane.log(name, "last", rank=1)
        plane.log_done(name)
        assert printed.wait(10)
    out, err = capsys.readouterr()
    assert out == "[node 1] epoch 1\n[node 1] epoch 2\n[node 1] last\n[node 1] last\n"
    assert "[node 0] careful\n" in err


def test_an_attempt_that_is_lost_with_its_node_is_told_once(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    lost: dict[str, Any] = {"index": 0, "attempt": 1, "node": "n1", "rank": 1, "cause": "AgentRestarted"}
    failed = {"index": 0, "attempt": 2, "node": "n1", "rank": 1, "cause": "UserException"}
    again: dict[str, Any] = {"index": 0, "attempt": 3, "node": "n0", "rank": 0}
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        future = add(1) > pool
        name = plane.names(TASKS)[0]
        plane.change(TASKS, name, phase="Running", attempts={"recent": [again, failed, lost]})
        plane.change(TASKS, name, phase="Recovering", attempts={"recent": [again, failed, lost]})
        plane.change(TASKS, name, phase="Failed", reason="NodeLost", attempts={"recent": [failed, lost]})
        with pytest.raises(sky.NodeLost):
            future.result(10)
    told = [line for line in capsys.readouterr().err.splitlines() if "attempt" in line]
    assert len(told) == 1
    assert told[0].endswith(
        f"task={name} ⚠ attempt 1 of call 0 was lost on node 1 (AgentRestarted); the call is tried again"
    )


def test_output_that_a_broken_stream_missed_is_shown_before_the_end(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        add(1) >> pool
        assert pool._entered()[0]._logs.connected.wait(10)
        plane.cut_logs()
        plane.log(plane.names(TASKS)[0], "late\n" * 1000, rank=1)
        plane.log(plane.names(TASKS)[0], "no end of line", rank=1)
    out = capsys.readouterr().out
    assert out == "[node 1] late\n" * 1000 + "[node 1] no end of line\n"


@sky.function
def stop_at_one(item: int) -> int:
    if item == 1:
        raise StopIteration("the last")
    return item


@pytest.mark.parametrize(
    "send",
    [
        lambda pool: stop_at_one(1) >> pool,
        lambda pool: (stop_at_one(1) > pool).result(10),
        lambda pool: pool.map(stop_at_one, range(3)),
        lambda pool: pool.map(stop_at_one, range(3), ordered=False),
        lambda pool: list(pool.map(stop_at_one, range(3), stream=True)),
        lambda pool: sky.gather(stop_at_one(0), stop_at_one(1)) >> pool,
        lambda pool: list(sky.gather(stop_at_one(0), stop_at_one(1), stream=True) >> pool),
    ],
)
def test_stop_iteration_of_a_call_says_that_it_is_one_and_of_which_call(pool: Pool, send: Any) -> None:
    with pytest.raises(RuntimeError, match="the call raised StopIteration with 'the last'") as raised:
        send(pool)
    stopped = raised.value.__cause__
    assert isinstance(stopped, StopIteration)
    assert "RemoteTraceback" in repr(stopped.__cause__)
    notes = raised.value.__notes__
    assert any(note.startswith("on node ") for note in notes)
    assert len(notes) == 1 or "(1); this is call 1" in notes[1]


@pytest.mark.parametrize("items", [None, 5, object()])
def test_map_over_what_is_no_iterable_is_refused_before_anything_is_made(
    plane: FakePlane, pool: Pool, items: Any
) -> None:
    with pytest.raises(TypeError, match=r"pool.map\(\) calls the function once for each item .* got "):
        pool.map(as_text, items)
    assert _creates(plane) == 0


def test_characters_at_which_only_unicode_ends_lines_end_no_output(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        add(1) >> pool
        assert pool._entered()[0]._logs.connected.wait(10)
        plane.log(plane.names(TASKS)[0], f"{odd}\n", rank=1)
        plane.log(plane.names(TASKS)[0], "after\n", rank=1)
    out, err = capsys.readouterr()
    assert out == f"[node 1] {odd}\n[node 1] after\n"
    assert "live output" not in err


def test_output_that_cannot_be_shown_is_told_once_and_what_follows_is_shown(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        session = pool._entered()[0]
        original = session.console.remote

        def picky(prefix: str, text: str, stream: Any) -> None:
            if "ü" in text:
                raise OSError("this terminal is too small")
            original(prefix, text, stream)

        session.console.remote = picky  # type: ignore[method-assign]
        add(1) >> pool
        assert session._logs.connected.wait(10)
        name = plane.names(TASKS)[0]
        for text in ("ü 1\n", "ü 2\n", "plain\n"):
            plane.log(name, text, rank=1)
    out, err = capsys.readouterr()
    assert out == "[node 1] plain\n"
    assert err.count(f"output of task {name} cannot be shown here (OSError: this terminal is too small)") == 1


def test_a_stream_of_output_that_fails_is_told_once_and_tried_again(
    plane: FakePlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    original = Gateway.stream

    def stream(self: Gateway, *args: Any, **more: Any) -> Iterator[dict[str, Any]]:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise AttributeError("of a client of another version")
        yield from original(self, *args, **more)

    monkeypatch.setattr(Gateway, "stream", stream)
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        add(1) >> pool
        assert pool._entered()[0]._logs.connected.wait(10)
        plane.log(plane.names(TASKS)[0], "shown\n", rank=1)
    out, err = capsys.readouterr()
    assert out == "[node 1] shown\n"
    assert err.count("live output does not come (AttributeError: of a client of another version)") == 1


def test_output_of_what_was_not_sent_from_here_is_not_shown(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        add(1) >> pool
        session = pool._entered()[0]
        assert session._logs.connected.wait(10)
        assert any(path.startswith("/v1/logs?namespace=default&") for _, path in plane.requests)
        name = plane.names(TASKS)[0]
        plane.log(name, "of another namespace\n", namespace="team-b")
        plane.log("copied", "of a task with our hash\n")
        plane.log("copied", "and half a line")
        plane.log(name, "mine\n")
    assert capsys.readouterr().out == "[node 0] mine\n"


@pytest.mark.parametrize(
    "send",
    [
        lambda pool: pool.map(as_text, [1, 2], retry=sky.Retry(on_exception=2)),
        lambda pool: pool.map(as_text.with_retry(2), [1, 2]),
        lambda pool: pool.map(as_text.with_retry(5), [1, 2], retry=sky.Retry(on_exception=2), timeout=9),
        lambda pool: list(pool.map(str, [1, 2], retry=sky.Retry(on_exception=2), stream=True)),
    ],
)
def test_map_is_retried_as_asked(plane: FakePlane, pool: Pool, send: Any) -> None:
    assert send(pool) == ["1", "2"]
    assert plane.only(TASKS)["spec"]["retry"]["onException"] == 2


def test_map_over_an_iterator_is_retried_as_asked(plane: FakePlane, pool: Pool) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    pool.map(as_text, iter([1]), retry=sky.Retry(on_exception=2), stream=True).close()
    assert plane.only(TASKS)["spec"]["retry"]["onException"] == 2
