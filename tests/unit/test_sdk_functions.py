"""Pending calls: lazy, frozen, typed, and loud about misplaced brackets."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, assert_type

import pytest

import skyward as sky
from skyward.contract import task_options as contract
from skyward.functions import activate, deactivate
from skyward.gather import StreamingGroup
from skyward.tasks import ResultIterator

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward.pools import Pool


class Recorder:
    """Stands where a pool stands, and remembers what it was sent."""

    name = "recorder"

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def __getattr__(self, method: str) -> Any:
        def record(work: Any) -> Any:
            self.sent.append((method, work))
            return {"run": 7, "broadcast": [7, 7], "run_parallel": (1, 2)}.get(method)

        return record


@pytest.fixture
def pool() -> Any:
    return Recorder()


@sky.function
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@sky.function(timeout=60)
def name_of(number: int) -> str:
    return str(number)


def test_calling_describes_and_does_not_run() -> None:
    pending = add(1, b=2)
    assert (pending.args, dict(pending.kwargs), pending.timeout) == ((1,), {"b": 2}, None)
    assert pending.function(1, 2) == 3
    assert repr(pending) == "<pending add(1, b=2)>"
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."


bare: Any = add
"""What a type checker does not see through."""


@pytest.mark.parametrize(
    "send",
    [
        lambda pool: bare >> pool,
        lambda pool: bare > pool,
        lambda pool: bare @ pool,
        lambda _: bare & add(1),
        lambda _: add(1) & bare,
        lambda _: (add(1) & add(2)) & bare,
        lambda _: sky.gather(add(1), bare),
    ],
)
def test_a_function_without_its_brackets_is_told_where_they_go(
    send: Callable[[Any], object], pool: Recorder
) -> None:
    with pytest.raises(TypeError, match=r"add is a function, not yet a call: .*add\(\.\.\.\) >> pool"):
        send(pool)
    assert pool.sent == []


def test_a_pending_call_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        add(1).timeout = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        add(1, b=2).kwargs["b"] = 3  # type: ignore[index]


def test_local_runs_here_as_the_only_node() -> None:
    @sky.function
    def place() -> tuple[int, int, list[int]]:
        info = sky.instance_info()
        return info.node, info.total_nodes, sky.shard([1, 2, 3])

    assert add.local(2, 3) == 5
    assert place.local() == (0, 1, [1, 2, 3])


def test_arguments_that_do_not_fit_raise_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"add\(a: .*missing a required argument"):
        add()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        add(1, c=2)  # type: ignore[call-arg]


def test_options_make_a_new_pending_call() -> None:
    pending = name_of(1)
    changed = pending.with_timeout(5).with_queue_timeout(6).with_retry(2, on_interruption=0)
    assert (pending.timeout, changed.timeout, changed.queue_timeout) == (60, 5, 6)
    assert changed.retry == sky.Retry(on_interruption=0, on_exception=2)
    assert pending.with_timeout(None).timeout is None


class Adder:
    """Something to call that has no name of its own."""

    def __init__(self, more: int) -> None:
        self.more = more

    def __call__(self, number: int) -> int:
        return number + self.more


def test_retry_of_an_executor_is_no_number() -> None:
    with pytest.raises(TypeError, match=r"retry must be like sky.Retry\(on_exception=2\), got 3"):
        sky.Executor(retry=3)  # type: ignore[arg-type]


def test_partial_functions_and_objects_to_call_have_names() -> None:
    power = sky.function(functools.partial(functools.partial(pow, 2), 3))
    assert (power.__name__, power().name, power.local()) == ("pow", "pow", 8)
    adder = sky.function(Adder(2))
    assert (adder.__name__, adder(1).name, adder.local(1)) == ("Adder", "Adder", 3)
    with pytest.raises(TypeError, match=r"Adder\(number: "):
        adder()  # type: ignore[call-arg]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 10**10])
def test_a_timeout_of_nothing_or_without_end_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be more than 0 seconds"):
        sky.Executor(timeout=seconds)
    with pytest.raises(ValueError, match="must be more than 0 seconds"):
        add(1).with_timeout(seconds)
    with pytest.raises(ValueError, match="must be more than 0 seconds"):
        sky.function(timeout=seconds)(print)


def test_compute_is_the_same_decorator() -> None:
    assert sky.compute(len)([1]).function is len
    assert sky.function(add) is add  # type: ignore[comparison-overlap]


def test_each_operator_reaches_its_method(pool: Any) -> None:
    group = add(1) & add(2)
    assert add(1) >> pool == 7
    assert add(1) @ pool == [7, 7]
    assert (group >> pool) == (1, 2)
    add(1) > pool  # noqa: B015
    group > pool  # noqa: B015
    sky.gather(add(1), add(2), stream=True) >> pool
    methods = [method for method, _ in pool.sent]
    assert methods == ["run", "broadcast", "run_parallel", "run_async", "run_parallel_async", "stream"]


def test_the_module_stands_for_the_active_pool(pool: Any) -> None:
    with pytest.raises(RuntimeError, match="no pool is active"):
        add(1) >> sky
    activate(pool)
    try:
        assert add(1) >> sky == 7
    finally:
        deactivate(pool)
    with pytest.raises(RuntimeError, match="no pool is active"):
        add(1) >> sky


def test_sending_to_anything_else_says_what_a_target_is() -> None:
    with pytest.raises(TypeError, match="not to the module 'dataclasses'"):
        add(1) >> dataclasses
    with pytest.raises(TypeError, match="not to 3"):
        add(1) >> 3  # type: ignore[operator]


@pytest.mark.parametrize("result", [7, "text", [1], None, {1}, True, 2.5])
def test_forgotten_brackets_are_named_whatever_the_result_is(result: Any) -> None:
    with pytest.raises(TypeError, match=r"\(a\(\) & b\(\)\) >> pool"):
        add(1) & result
    with pytest.raises(TypeError, match=r"\(a\(\) & b\(\)\) >> pool"):
        result & add(1)
    with pytest.raises(TypeError, match=r"\(a\(\) & b\(\)\) >> pool"):
        add(1) & add(2) & result


def test_forgotten_brackets_are_named_for_arrays() -> None:
    import numpy as np

    with pytest.raises(TypeError, match="Put brackets around the group"):
        np.arange(3) & add(1)
    with pytest.raises(TypeError, match="Put brackets around the group"):
        add(1) & np.arange(3)  # type: ignore[operator]


def test_the_precedence_trap_raises_as_a_whole(pool: Any) -> None:
    with pytest.raises(TypeError, match="bind tighter than &"):
        add(1) & add(2) >> pool


def test_a_group_cannot_be_broadcast(pool: Any) -> None:
    with pytest.raises(TypeError, match="Broadcast its members"):
        (add(1) & add(2)) @ pool


def test_a_pending_call_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError, match="has not run"):
        bool(add(1))


def test_groups_join() -> None:
    assert len(add(1) & add(2) & name_of(3)) == 3
    assert len((add(1) & add(2)) & (add(3) & add(4))) == 4
    assert len(add(0) & (add(1) & add(2))) == 3
    assert [m.timeout for m in (add(1) & add(2)).with_timeout(4).members] == [4, 4]


def test_gather_needs_pending_calls() -> None:
    assert len(sky.gather(*[add(i) for i in range(5)])) == 5
    streaming = sky.gather(add(1), stream=True, ordered=False)
    assert isinstance(streaming, StreamingGroup)
    assert not streaming.ordered
    with pytest.raises(ValueError, match="at least one call"):
        sky.gather()
    with pytest.raises(TypeError, match="already a result"):
        sky.gather(add(1), 3)  # type: ignore[call-overload]


def types(pool: Pool) -> None:
    """Never run: mypy checks that results keep their types through every operator."""
    assert_type(add.with_retry(2)(1) >> pool, int)
    assert_type(pool.map(name_of.with_retry(2), [1]), list[str])
    assert_type(pool.map(name_of, [1], retry=sky.Retry(on_exception=2), stream=True), ResultIterator[str])
    assert_type(add(1) >> pool, int)
    assert_type(add(1) >> sky, int)
    assert_type(add(1) @ pool, list[int])
    assert_type(add(1) > pool, sky.TaskFuture[int])
    assert_type((add(1) & name_of(2)) >> pool, tuple[int, str])
    assert_type((add(1) & name_of(2) & add(3)) >> sky, tuple[int, str, int])
    assert_type(sky.gather(add(1), name_of(2)) >> pool, tuple[int, str])
    assert_type(sky.gather(*[add(1)]) >> pool, tuple[int, ...])
    assert_type(sky.gather(add(1), stream=True) >> pool, ResultIterator[int])
    assert_type(pool.map(name_of, [1], stream=True), ResultIterator[str])
    assert_type(pool.map(name_of, [1], on_error="return"), list[str | Exception])
    assert_type(pool.map(name_of, [1], stream=True, on_error="return"), ResultIterator[str | Exception])
    assert_type(pool.map(str, [1], stream=True), ResultIterator[str])
    assert_type(sky.gather(add(1), stream=True, on_error="return") >> pool, ResultIterator[int | Exception])
    assert_type(sky.gather(*[add(1)], on_error="return") >> pool, tuple[int | Exception, ...])
    assert_type(pool.map(str, [1], on_error="return"), list[str | Exception])
    assert_type(pool.map(name_of, [1, 2]), list[str])
    assert_type((add(1) & (name_of(1) & add(2))) >> pool, tuple[int, str, int])
    assert_type(add.local(1), int)
    assert_type(name_of(1).with_timeout(3) >> pool, str)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on_exception": -1}, "on_exception must be at least 0, got -1"),
        ({"on_interruption": -1}, "on_interruption must be at least 0, got -1"),
        ({"on_exception": 101}, "on_exception must be at most 100, got 101"),
        ({"on_exception": 1.5}, "on_exception must be a whole number, got 1.5"),
        ({"on_exception": True}, "on_exception must be a whole number, got True"),
        ({"backoff": -1}, "backoff must be at least 0, got -1"),
        ({"backoff": 61}, "backoff must be at most 60, got 61"),
        ({"backoff": 3601, "max_backoff": 7200}, "backoff must be at most 3600, got 3601"),
        ({"max_backoff": 86_401}, "max_backoff must be at most 86400, got 86401"),
    ],
)
def test_retry_that_cannot_be_is_refused_at_once(given: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        sky.Retry(**given)
    with pytest.raises((TypeError, ValueError), match=words):
        sky.function(len)("x").with_retry(**given)


def test_retry_takes_what_the_api_takes() -> None:
    bounds = {name: field.metadata for name, field in contract.Retry.model_fields.items()}
    for name, given in {
        "on_interruption": {"on_interruption": 100},
        "on_exception": {"on_exception": 100},
        "backoff_seconds": {"backoff": 3600, "max_backoff": 86_400},
        "max_backoff_seconds": {"max_backoff": 86_400},
    }.items():
        sky.Retry(**given)
        most = next(each.le for each in bounds[name] if hasattr(each, "le"))
        assert most == given[name.removesuffix("_seconds")]


def test_retry_of_a_function_is_that_of_its_calls() -> None:
    twice = sky.Retry(on_exception=2)

    @sky.function(retry=twice, timeout=5)
    def marked() -> None: ...

    assert marked().retry == twice
    again = marked.with_retry(3, on_interruption=1)
    assert again().retry == sky.Retry(on_exception=3, on_interruption=1)
    assert again().timeout == 5
    assert marked().retry == twice
    assert marked().with_retry(4).retry == sky.Retry(on_exception=4)
    with pytest.raises(TypeError, match="retry must be like"):
        sky.function(retry=2)(len)  # type: ignore[call-overload]
