"""The store: newest wins whatever the order of arrival, and what is deleted stays deleted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skyward.contract.names import NODE, POOL, TASK
from skyward_operator.kube.kinds import SECRET
from skyward_operator.kube.merge import contains, merged
from skyward_operator.kube.store import Store

type Object = dict[str, Any]


def task(
    name: str = "a", version: int = 1, *, uid: str = "", pool: str = "gpus", namespace: str = "default"
) -> Object:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
    }
    return {"metadata": metadata, "spec": {"poolRef": {"name": pool}}}


def test_an_older_object_never_replaces_a_newer_one() -> None:
    store = Store()

    assert store.put(TASK, task(version=10))
    assert not store.put(TASK, task(version=9))
    assert not store.put(TASK, task(version=10))
    assert store.get(TASK, "default", "a") == task(version=10)


def test_a_deleted_object_is_not_brought_back_by_a_late_event() -> None:
    store = Store()
    store.put(TASK, task(version=5))
    store.remove(TASK, "default", "a", "uid-a")

    assert not store.put(TASK, task(version=7))
    assert store.get(TASK, "default", "a") is None


def test_a_deletion_that_comes_before_the_object_keeps_it_out() -> None:
    store = Store()
    store.remove(TASK, "default", "a", "uid-a")

    assert not store.put(TASK, task(version=7))


def test_an_object_of_the_same_name_but_another_uid_is_seen_as_deleted_and_created() -> None:
    store, told = Store(), list[tuple[str | None, str | None]]()
    store.put(TASK, task(version=5, uid="first"))
    store.subscribe(TASK, lambda old, new: told.append((_uid(old), _uid(new))))
    store.put(TASK, task(version=8, uid="second"))

    assert told == [("first", None), (None, "second")]
    assert not store.remove(TASK, "default", "a", "first")
    assert _uid(store.get(TASK, "default", "a")) == "second"


def test_tasks_and_nodes_are_found_by_pool() -> None:
    store = Store()
    store.put(TASK, task("a", pool="gpus"))
    store.put(TASK, task("b", pool="cpus"))
    store.put(TASK, task("c", pool="gpus", namespace="other"))
    store.put(NODE, task("n", pool="gpus"))
    store.put(
        POOL, {"metadata": {"name": "gpus", "namespace": "default", "uid": "p", "resourceVersion": "1"}}
    )

    assert [obj["metadata"]["name"] for obj in store.by_pool(TASK, "default", "gpus")] == ["a"]
    assert [obj["metadata"]["name"] for obj in store.by_pool(NODE, "default", "gpus")] == ["n"]
    assert [obj["metadata"]["name"] for obj in store.by_pool(POOL, "default", "gpus")] == ["gpus"]
    store.remove(TASK, "default", "a", "uid-a")
    assert not store.by_pool(TASK, "default", "gpus")


def test_a_list_removes_what_is_absent_but_keeps_what_is_newer_than_it() -> None:
    store = Store()
    store.put(TASK, task("gone", version=5))
    store.put(TASK, task("fresh", version=12))
    store.put(TASK, task("elsewhere", version=5, namespace="other"))

    difference = store.replace(TASK, [task("known", version=6)], "10", "default")

    assert (difference.newer, difference.gone) == (1, 1)
    assert {obj["metadata"]["name"] for obj in store.list(TASK)} == {"known", "fresh", "elsewhere"}
    assert not store.put(TASK, task("gone", version=6))


def test_a_failing_subscriber_does_not_deafen_the_others() -> None:
    store, told = Store(), list[str | None]()

    def broken(_: Object | None, __: Object | None) -> None:
        raise RuntimeError("a bug")

    store.subscribe(TASK, broken)
    store.subscribe(TASK, lambda _, new: told.append(_uid(new)))
    store.put(TASK, task())

    assert told == ["uid-a"]


def test_other_kinds_are_not_held() -> None:
    assert not Store().put(SECRET, task())


@given(st.permutations(["put 3", "put 5", "put 9", "delete", "list without", "put 7"]))
def test_any_order_of_arrival_ends_without_the_deleted_object(order: list[str]) -> None:
    store = Store()
    for step in order:
        match step.split():
            case ["put", version]:
                store.put(TASK, task(version=int(version)))
            case ["delete"]:
                store.remove(TASK, "default", "a", "uid-a")
            case _:
                store.replace(TASK, [], "4")

    assert store.get(TASK, "default", "a") is None


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.sampled_from("abc"), _values, max_size=3)


@given(_objects, _objects)
def test_a_merge_patch_applied_twice_changes_nothing_more(target: Object, patch: Object) -> None:
    once = merged(target, patch)

    assert merged(once, patch) == once


def test_defaults_of_the_server_do_not_hide_what_was_sent() -> None:
    stored = {"spec": {"a": 1, "list": [{"x": 1, "default": True}], "default": 2}}

    assert contains(stored, {"spec": {"a": 1, "list": [{"x": 1}]}})
    assert not contains(stored, {"spec": {"a": 2}})
    assert not contains(stored, {"spec": {"list": []}})


def _uid(obj: Object | None) -> str | None:
    return obj["metadata"]["uid"] if obj is not None else None


def test_managed_fields_are_not_kept() -> None:
    store = Store()
    task = {
        "metadata": {
            "namespace": "default",
            "name": "t",
            "uid": "1",
            "resourceVersion": "1",
            "managedFields": [{"manager": "somebody"}],
        },
        "spec": {"poolRef": {"name": "p"}},
    }
    assert store.put(TASK, task)
    found = store.get(TASK, "default", "t")
    assert found is not None
    assert "managedFields" not in found["metadata"]
