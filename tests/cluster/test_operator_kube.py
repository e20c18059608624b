"""The operator's side of Kubernetes on a real API server, with the operator's own rights."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.fake.kube_server import eventually

from skyward.contract.names import (
    ANNOTATION_GATEWAY,
    ANNOTATION_SCHEMA,
    KINDS,
    NODE,
    POOL,
    SCHEMA_VERSION,
    TASK,
)
from skyward_operator.engine.clock import SystemClock
from skyward_operator.kube import api as api_module
from skyward_operator.kube import kubeconfig
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection, Patience
from skyward_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeader,
)
from skyward_operator.kube.events import Events
from skyward_operator.kube.intake import Intake
from skyward_operator.kube.kinds import EVENT, LEASE, NAMESPACE
from skyward_operator.kube.lease import Leadership
from skyward_operator.kube.resync import Resync
from skyward_operator.kube.schema import find_obstacle
from skyward_operator.kube.store import Store
from skyward_operator.main import STOPPED, Operator, Parts
from skyward_operator.settings import LeaseTimes, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import ControlPlane

    from skyward_operator.context import Context
    from skyward_operator.kube.credentials import Credentials


@pytest.fixture
def credentials(control_plane: ControlPlane) -> Credentials:
    return kubeconfig.load(control_plane.operator_kubeconfig)


@pytest.fixture
async def api(credentials: Credentials, hung_up: None) -> AsyncIterator[Api]:
    async with Connection(credentials) as connection:
        yield Api(connection)


@pytest.fixture
async def admin(control_plane: ControlPlane, hung_up: None) -> AsyncIterator[Api]:
    async with Connection(kubeconfig.load(control_plane.kubeconfig)) as connection:
        yield Api(connection)


def task(namespace: str, name: str = "one", **spec: Any) -> dict[str, Any]:
    function = {"entrypoint": "math:factorial", "args": [5]}
    body = {"poolRef": {"name": "gpus"}, "function": function} | spec
    return {"metadata": {"namespace": namespace, "name": name}, "spec": body}


async def test_a_task_is_read_patched_and_deleted(api: Api, admin: Api, namespace: str) -> None:
    created = await admin.create(TASK, task(namespace))
    version = created["metadata"]["resourceVersion"]

    running = await api.patch_status(TASK, namespace, "one", {"phase": "Running"}, resource_version=version)
    with pytest.raises(Conflict):
        await api.patch_status(TASK, namespace, "one", {"phase": "Failed"}, resource_version=version)
    same = await api.patch_status(TASK, namespace, "one", {"phase": "Running"}, current=running["status"])

    assert same is None
    assert (await api.get(TASK, namespace, "one"))["status"]["phase"] == "Running"
    with pytest.raises(Conflict):
        await api.delete(TASK, namespace, "one", uid="another")
    await api.delete(TASK, namespace, "one", uid=created["metadata"]["uid"])
    await api.delete(TASK, namespace, "one")
    with pytest.raises(NotFound):
        await api.get(TASK, namespace, "one")


async def test_refusals_name_the_object_and_the_reason(api: Api, admin: Api, namespace: str) -> None:
    await admin.create(TASK, task(namespace))

    with pytest.raises(AlreadyExists, match=f"Task {namespace}/one"):
        await admin.create(TASK, task(namespace))
    with pytest.raises(Invalid, match=r"spec\.priority"):
        await admin.create(TASK, task(namespace, "two", priority="high"))
    with pytest.raises(Forbidden, match="cannot create resource"):
        await api.create(TASK, task(namespace, "three"))
    with pytest.raises(Forbidden):
        await api.delete(NAMESPACE, None, namespace)


async def test_a_list_in_pages_is_complete(
    api: Api, admin: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_PAGE", 7)
    await asyncio.gather(*(admin.create(TASK, task(namespace, f"t{number}")) for number in range(24)))

    objects, version = await api.list(TASK, namespace)

    assert {obj["metadata"]["name"] for obj in objects} == {f"t{number}" for number in range(24)}
    assert {obj["kind"] for obj in objects} == {"Task"}
    assert int(version) >= max(int(obj["metadata"]["resourceVersion"]) for obj in objects)


async def test_server_side_apply_makes_and_owns_fields(admin: Api, namespace: str) -> None:
    spec = {"candidates": [{"name": "here", "provider": "local"}]}
    await admin.apply(POOL, namespace, "gpus", {"metadata": {"name": "gpus"}, "spec": spec})
    again = await admin.apply(POOL, namespace, "gpus", {"metadata": {"name": "gpus"}, "spec": spec})

    owners = [entry["manager"] for entry in again["metadata"]["managedFields"]]
    assert owners == ["skyward-operator"]


async def test_the_schema_of_this_release_is_found(api: Api) -> None:
    assert await find_obstacle(api) is None


async def test_another_schema_version_is_an_obstacle_with_a_remedy(
    api: Api, control_plane: ControlPlane
) -> None:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{TASK.crd_name}"
    with control_plane.api() as plane:
        _annotate(plane, path, "0")
        try:
            obstacle = await find_obstacle(api)
        finally:
            _annotate(plane, path, SCHEMA_VERSION)

    assert obstacle is not None
    assert TASK.crd_name in obstacle
    assert f"schema version 0, this operator needs {SCHEMA_VERSION}" in obstacle
    assert "kubectl apply" in obstacle


def _annotate(plane: Any, path: str, version: str) -> None:
    crd = plane.get(path)
    crd["metadata"].pop("managedFields", None)
    crd["metadata"].pop("resourceVersion", None)
    crd["metadata"]["annotations"][ANNOTATION_SCHEMA] = version
    crd.pop("status", None)
    plane.apply(path, crd)


async def test_events_are_counted_and_shown(api: Api, admin: Api, namespace: str) -> None:
    obj = await admin.create(TASK, task(namespace))
    events = Events(api, SystemClock())
    running = asyncio.create_task(events.run())
    for _ in range(3):
        events.emit(obj, "Warning", "NoCapacity", "no machine to be had")
    events.emit(obj, "Normal", "Started", "x" * 5000)

    async def count() -> int:
        found, _ = await admin.list(EVENT, namespace)
        return len(found)

    async with asyncio.timeout(10):
        while await count() < 2:  # noqa: ASYNC110 - the API server is what is waited for
            await asyncio.sleep(0.02)
    running.cancel()

    found, _ = await admin.list(EVENT, namespace)
    storm = next(event for event in found if event["reason"] == "NoCapacity")
    assert storm["count"] == 3
    assert storm["involvedObject"]["uid"] == obj["metadata"]["uid"]


class Watched:
    """An intake on the real server, in one namespace."""

    def __init__(self, credentials: Credentials, api: Api, namespace: str) -> None:
        self.store = Store()
        self.resync = Resync(api, self.store, namespaces=[namespace])
        self.intake = Intake(credentials, self.store, self.resync, SystemClock(), namespaces=[namespace])

    def names(self) -> set[str]:
        """The names of the known tasks."""
        return {obj["metadata"]["name"] for obj in self.store.list(TASK)}


@asynccontextmanager
async def watching(credentials: Credentials, api: Api, namespace: str) -> AsyncIterator[Watched]:
    subject = Watched(credentials, api, namespace)
    await subject.resync.all()
    tasks = [asyncio.create_task(subject.intake.run()), asyncio.create_task(subject.resync.run())]
    try:
        yield subject
    finally:
        for running in tasks:
            running.cancel()
        await asyncio.wait(tasks)


async def test_the_store_follows_the_server(
    credentials: Credentials, api: Api, admin: Api, namespace: str
) -> None:
    await admin.create(TASK, task(namespace, "before"))
    async with watching(credentials, api, namespace) as subject:
        assert subject.names() == {"before"}
        await admin.create(TASK, task(namespace, "after"))
        await eventually(lambda: subject.names() == {"before", "after"})
        await admin.patch(TASK, namespace, "after", {"spec": {"cancel": True}})
        await eventually(lambda: (subject.store.get(TASK, namespace, "after") or {})["spec"]["cancel"])
        await admin.delete(TASK, namespace, "before")
        await eventually(lambda: subject.names() == {"after"})

        after = subject.store.get(TASK, namespace, "after")
        assert after is not None
        assert "kopf" not in json.dumps(after)


async def test_the_store_recovers_when_the_api_server_was_away(
    credentials: Credentials, api: Api, admin: Api, namespace: str, control_plane: ControlPlane
) -> None:
    await admin.create(TASK, task(namespace, "goes"))
    await admin.create(TASK, task(namespace, "stays"))
    async with watching(credentials, api, namespace) as subject:
        await eventually(lambda: subject.names() == {"goes", "stays"})
        await asyncio.to_thread(control_plane.kill_api_server)
        with pytest.raises(ApiError):
            await api.with_patience(Patience(deadline=0.5)).get(TASK, namespace, "stays")
        await asyncio.to_thread(control_plane.start_api_server)
        await admin.delete(TASK, namespace, "goes")
        await admin.create(TASK, task(namespace, "new"))

        await eventually(lambda: subject.names() == {"stays", "new"}, 30)


async def test_one_of_two_candidates_leads_and_hands_over(api: Api, admin: Api) -> None:
    settings = Settings(Path("/nowhere"), lease_times=LeaseTimes(5, 3, 0.1))
    one, two = (Leadership(api, settings, SystemClock()) for _ in range(2))
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    with pytest.raises(NotLeader):
        two.check()
    one.check()

    await one.release()
    async with asyncio.timeout(5):
        await waiting

    two.check()
    lease = await admin.get(LEASE, settings.lease_namespace, settings.lease_name)
    assert lease["spec"]["holderIdentity"] == two.identity
    await two.release()


async def test_an_operator_becomes_ready_and_stops(
    credentials: Credentials, admin: Api, namespace: str, tmp_path: Path
) -> None:
    contexts: list[Context] = []
    ended: list[str] = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("loop")

    async def url() -> str:
        return "http://127.0.0.1:9"

    def wire(context: Context) -> Parts:
        contexts.append(context)
        return Parts({"nodes": loop}, url)

    settings = Settings(tmp_path, namespaces=(namespace,), lease_times=LeaseTimes(5, 3, 0.1))
    operator = Operator(settings, credentials, wire)
    running = asyncio.create_task(operator.run())
    await eventually(settings.endpoints_file.exists, 20)

    endpoints = json.loads(settings.endpoints_file.read_text())
    lease = await admin.get(LEASE, settings.lease_namespace, settings.lease_name)
    assert (
        lease["metadata"]["annotations"][ANNOTATION_GATEWAY] == endpoints["gateway"] == "http://127.0.0.1:9"
    )
    async with aiohttp.ClientSession(endpoints["health"]) as http:
        assert [(await http.get(path)).status for path in ("/livez", "/readyz", "/metrics")] == [
            200,
            200,
            200,
        ]
        assert "skyward_leader 1.0" in await (await http.get("/metrics")).text()

    obj = await admin.create(TASK, task(namespace))
    await eventually(lambda: contexts[0].store.get(TASK, namespace, "one") is not None)
    written = await contexts[0].api.patch_status(TASK, namespace, "one", {"phase": "Running"})
    known = contexts[0].store.get(TASK, namespace, "one")
    assert known is not None
    assert int(known["metadata"]["resourceVersion"]) >= int(written["metadata"]["resourceVersion"])
    assert obj["metadata"]["uid"] == known["metadata"]["uid"]

    operator.stop()
    async with asyncio.timeout(10):
        assert await running == STOPPED
    assert ended == ["loop"]
    assert not settings.endpoints_file.exists()
    with pytest.raises(NotLeader):
        await contexts[0].api.patch_status(TASK, namespace, "one", {"phase": "Failed"})
    lease = await admin.get(LEASE, settings.lease_namespace, settings.lease_name)
    assert not lease["spec"].get("holderIdentity")


async def test_the_command_becomes_ready_and_stops_on_sigterm(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    flags = ["--data-dir", str(tmp_path), "--kubeconfig", str(control_plane.operator_kubeconfig)]
    places = ["--namespace", namespace, "--lease-namespace", namespace]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skyward_operator", "run", *flags, *places, "--log-format", "json"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await eventually((tmp_path / "endpoints.json").exists, 30)
        endpoints = json.loads((tmp_path / "endpoints.json").read_text())
        async with aiohttp.ClientSession() as http, http.get(endpoints["health"] + "/readyz") as ready:
            assert ready.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            _, log = await process.communicate()

    lines = [json.loads(line) for line in log.splitlines()]
    assert process.returncode == STOPPED
    assert lines[-1]["message"] == "stopped"
    assert [line for line in lines if line["level"] in ("warning", "error")] == []


async def test_every_kind_can_be_listed_with_the_operators_rights(api: Api) -> None:
    for kind in KINDS:
        await api.list(kind)
    name = f"n-{secrets.token_hex(3)}"
    with pytest.raises(NotFound):
        await api.get(NODE, "default", name)
