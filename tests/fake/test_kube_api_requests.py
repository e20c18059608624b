"""The API client against a server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import FakeKube, collection

from skyward.contract.names import NODE, TASK
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection, Patience
from skyward_operator.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeader,
    Throttled,
    Unavailable,
)
from skyward_operator.kube.tokens import FileToken
from skyward_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TASKS = collection("tasks")
QUICK = Patience(attempt=1.0, deadline=5.0, first_delay=0.01, longest_delay=0.05)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as server:
        yield server


@pytest.fixture
async def api(kube: FakeKube) -> AsyncIterator[Api]:
    async with Connection(kube.credentials(), patience=QUICK) as connection:
        yield Api(connection)


def task(name: str = "one", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"poolRef": {"name": "gpus"}} | spec}


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
async def test_a_read_succeeds_when_the_server_recovers(kube: FakeKube, api: Api, code: int) -> None:
    kube.put(TASKS, task())
    fault = kube.fault(method="GET", status=code, times=3)

    found = await api.get(TASK, "default", "one")

    assert found["metadata"]["name"] == "one"
    assert fault.seen == 3


async def test_throttling_waits_as_long_as_the_server_asks(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task())
    kube.fault(method="GET", status=429, headers={"Retry-After": "1"})
    loop = asyncio.get_running_loop()
    started = loop.time()

    await api.get(TASK, "default", "one")

    assert loop.time() - started >= 1.0


async def test_throttled_is_raised_when_the_server_asks_for_more_than_the_deadline(
    kube: FakeKube, api: Api
) -> None:
    kube.fault(method="GET", status=429, headers={"Retry-After": "30"}, times=99)

    with pytest.raises(Throttled):
        await api.get(TASK, "default", "one")

    assert kube.count("GET") == 1


async def test_unavailable_is_raised_when_the_server_stays_broken(kube: FakeKube, api: Api) -> None:
    kube.fault(status=503, times=10_000)
    impatient = api.with_patience(Patience(attempt=0.2, deadline=0.4, first_delay=0.01, longest_delay=0.05))

    with pytest.raises(Unavailable) as raised:
        await impatient.get(TASK, "default", "one")

    assert raised.value.code == 503
    assert "Task default/one" in str(raised.value)


async def test_a_half_open_connection_is_given_up_and_tried_again(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task())
    kube.fault(method="GET", hang=True)
    impatient = api.with_patience(Patience(attempt=0.2, deadline=5.0, first_delay=0.01))

    found = await impatient.get(TASK, "default", "one")

    assert found["metadata"]["name"] == "one"
    assert kube.count("GET") == 2


async def test_unavailable_is_raised_when_nobody_listens() -> None:
    async with FakeKube() as gone:
        credentials = gone.credentials()
    async with Connection(credentials, patience=Patience(deadline=0.3, first_delay=0.01)) as connection:
        with pytest.raises(Unavailable, match="Task default/one"):
            await Api(connection).get(TASK, "default", "one")


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (400, "BadRequest", Invalid),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (422, "Invalid", Invalid),
    ],
)
async def test_a_final_refusal_is_raised_at_once(
    kube: FakeKube, api: Api, code: int, reason: str, error: type[Exception]
) -> None:
    kube.fault(method="PATCH", status=code, reason=reason, times=99)

    with pytest.raises(error):
        await api.patch(TASK, "default", "one", {"spec": {"cancel": True}})

    assert kube.count("PATCH") == 1


async def test_a_create_whose_answer_was_lost_returns_the_object(kube: FakeKube, api: Api) -> None:
    kube.fault(method="POST", lose_answer=True)

    created = await api.create(TASK, task(priority=3))

    assert created["metadata"]["uid"]
    assert kube.count("POST") == 2
    assert len(kube.objects[TASKS]) == 1


async def test_a_create_whose_answer_was_lost_refuses_an_object_that_differs(
    kube: FakeKube, api: Api
) -> None:
    kube.put(TASKS, task(priority=7))
    kube.fault(method="POST", status=503)

    with pytest.raises(AlreadyExists):
        await api.create(TASK, task(priority=3))


async def test_a_create_of_a_taken_name_is_refused_even_when_equal(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task(priority=3))

    with pytest.raises(AlreadyExists):
        await api.create(TASK, task(priority=3))


async def test_deleting_what_is_gone_succeeds(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task())
    kube.fault(method="DELETE", lose_answer=True)

    await api.delete(TASK, "default", "one")
    await api.delete(TASK, "default", "one")

    assert not kube.objects[TASKS]


async def test_deleting_another_uid_conflicts(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task())

    with pytest.raises(Conflict):
        await api.delete(TASK, "default", "one", uid="another")


async def test_a_status_that_changes_nothing_is_not_sent(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task() | {"status": {"phase": "Running", "counts": {"total": 2, "running": 1}}})
    current = {"phase": "Running", "counts": {"total": 2, "running": 1}}

    same = await api.patch_status(TASK, "default", "one", {"counts": {"running": 1}}, current=current)
    changed = await api.patch_status(TASK, "default", "one", {"counts": {"running": None}}, current=current)

    assert same is None
    assert changed is not None
    assert changed["status"] == {"phase": "Running", "counts": {"total": 2}}
    assert kube.count("PATCH", "/status") == 1


async def test_a_stale_resource_version_conflicts(kube: FakeKube, api: Api) -> None:
    old = kube.put(TASKS, task())["metadata"]["resourceVersion"]
    kube.put(TASKS, task(priority=2))

    with pytest.raises(Conflict):
        await api.patch_status(TASK, "default", "one", {"phase": "Running"}, resource_version=old)


async def test_a_list_reads_all_pages_at_one_version(kube: FakeKube, api: Api) -> None:
    for number in range(1203):
        kube.put(collection("tasks", f"team-{number % 3}"), task(f"t{number}"))

    objects, version = await api.list(TASK)

    assert len(objects) == 1203
    assert version == str(kube.version)
    assert {obj["kind"] for obj in objects} == {"Task"}


async def test_a_list_starts_again_when_its_moment_expires(kube: FakeKube, api: Api) -> None:
    for number in range(600):
        kube.put(TASKS, task(f"t{number}"))
    kube.fault(query="continue", status=410, reason="Expired")

    objects, _ = await api.list(TASK, "default")

    assert len(objects) == 600
    assert kube.count("GET") == 4


async def test_a_fence_forbids_every_attempt_of_a_write(kube: FakeKube, api: Api) -> None:
    kube.put(TASKS, task())
    kube.fault(method="PATCH", status=503, times=99)
    left = 2

    def fence() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise NotLeader("the lease is lost")

    with pytest.raises(NotLeader):
        await api.with_fence(fence).patch(TASK, "default", "one", {"spec": {"cancel": True}})

    assert kube.count("PATCH") == 2
    assert (await api.with_fence(fence).get(TASK, "default", "one"))["metadata"]["name"] == "one"


async def test_what_a_write_answers_is_observed(kube: FakeKube, api: Api) -> None:
    seen: list[tuple[str, str]] = []
    observing = api.with_fence(None, lambda kind, obj: seen.append((kind.kind, obj["metadata"]["name"])))

    await observing.create(NODE, {"metadata": {"namespace": "default", "name": "n0"}})
    await observing.patch_status(NODE, "default", "n0", {"phase": "Ready"})

    assert seen == [("ComputeNode", "n0"), ("ComputeNode", "n0")]


async def test_a_rotated_token_is_used_after_a_refusal(kube: FakeKube, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    kube.put(TASKS, task())
    async with Connection(kube.credentials(FileToken(file)), patience=QUICK) as connection:
        api = Api(connection)
        await api.get(TASK, "default", "one")
        file.write_text("new\n")
        kube.fault(status=401, reason="Unauthorized")

        await api.get(TASK, "default", "one")

    assert kube.tokens == ["Bearer old", "Bearer old", "Bearer new"]


async def test_refused_credentials_are_forbidden(kube: FakeKube, api: Api) -> None:
    kube.fault(status=401, reason="Unauthorized", times=99)

    with pytest.raises(Forbidden):
        await api.get(TASK, "default", "one")

    assert kube.count("GET") == 2


async def test_requests_are_counted_by_verb_kind_and_code(kube: FakeKube) -> None:
    metrics = Metrics()
    kube.put(TASKS, task())
    kube.fault(status=503)
    async with Connection(kube.credentials(), metrics=metrics, patience=QUICK) as connection:
        await Api(connection).get(TASK, "default", "one")

    text = metrics.text().decode()
    assert 'skyward_api_request_seconds_count{code="503",kind="tasks",verb="get"} 1.0' in text
    assert 'skyward_api_request_seconds_count{code="200",kind="tasks",verb="get"} 1.0' in text


async def test_bodies_are_never_logged(kube: FakeKube, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kube.fault(method="POST", status=503)

    await api.create(TASK, task(secret="hunter2"))

    assert "hunter2" not in caplog.text
