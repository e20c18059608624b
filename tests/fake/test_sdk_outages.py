"""Waiting through whatever the control plane does: results arrive, and nobody waits in silence."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.sdk_plane import LEASES, POOLS, TASKS, FakePlane, wait_until

import skyward as sky
from skyward.cluster import pulse
from skyward.cluster.api import Api
from skyward.cluster.connection import Connection, connect
from skyward.cluster.watch import Watch
from skyward.contract.names import ANNOTATION_SCHEMA, LEASE_NAME, POOL, TASK
from skyward.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fake.kube_server import Object

SILENT = sky.Options(console="silent")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@sky.function
def add(a: int, b: int) -> int:
    return a + b


def _api(plane: FakePlane) -> Api:
    return Api(Connection(plane.server, "default", "the fake"))


def _task(name: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"calls": {}},
        "status": {"phase": "Held"},
    }


class Seen:
    """What a watch reported, and a way to wait for it."""

    def __init__(self) -> None:
        self.objects: list[str] = []
        self.gone: list[str] = []
        self.troubles: list[str | None] = []
        self._changed = threading.Condition()

    def watch(self, api: Api, silence: float = 30.0) -> Watch:
        return Watch(
            api,
            TASK,
            "default",
            on_object=lambda item: self._add(self.objects, f"{item['metadata']['name']} {_phase(item)}"),
            on_gone=lambda item: self._add(self.gone, item["metadata"]["name"]),
            on_trouble=lambda text: self._add(self.troubles, text),
            selectors={},
            silence=silence,
        )

    def wait(self, claim: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(claim, 20), vars(self)

    def _add(self, where: list[Any], what: str | None) -> None:
        with self._changed:
            where.append(what)
            self._changed.notify_all()


def _phase(item: Object) -> str:
    return str((item.get("status") or {}).get("phase"))


@pytest.fixture
def held(plane: FakePlane) -> FakePlane:
    """A plane whose tasks stay as they are."""
    plane.answer = lambda *_: {}
    return plane


def _put(plane: FakePlane, name: str) -> None:
    async def put() -> None:
        plane.put(TASKS, _task(name))

    plane.on_loop(put())


def test_what_was_missed_while_the_version_expired_is_told(held: FakePlane) -> None:
    _put(held, "stays")
    _put(held, "goes")
    seen, api = Seen(), _api(held)
    watch = seen.watch(api).start()
    wait_until(lambda: held.watching)

    async def miss_and_expire() -> None:
        held.remove(TASKS, "goes", tell=False)
        held.cut_watches(error=410)
        held.put(TASKS, _task("comes"))

    held.on_loop(miss_and_expire())
    seen.wait(lambda: "comes Held" in seen.objects and seen.gone == ["goes"])
    assert seen.objects.count("stays Held") == 1
    watch.stop()
    api.close()


def test_a_watch_that_falls_silent_is_made_again(held: FakePlane) -> None:
    held.silent_watches = True
    seen, api = Seen(), _api(held)
    watch = seen.watch(api, silence=0.3).start()
    wait_until(lambda: held.watching)
    _put(held, "unheard")
    seen.wait(lambda: any(text and "broke" in text for text in seen.troubles))
    assert seen.objects == []
    held.silent_watches = False
    seen.wait(lambda: "unheard Held" in seen.objects)
    watch.stop()
    api.close()


def test_a_refusal_before_the_first_list_is_the_callers(held: FakePlane) -> None:
    held.fault(method="GET", path="/tasks", status=403, reason="Forbidden")
    api = _api(held)
    with pytest.raises(sky.ControlPlaneError, match="not allowed"):
        Seen().watch(api).start()
    api.close()


def test_a_caller_waits_through_an_outage_and_is_told(
    plane: FakePlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward.session.TROUBLE_SECONDS", 0.3)
    plane.answer = lambda *_: {"phase": "Running"}
    told = threading.Event()
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        future = add(1, 2) > pool
        name = plane.names(TASKS)[0]
        console = pool._entered()[0].console
        write = console._write  # type: ignore[attr-defined]

        def notice(text: str) -> None:
            write(text)
            if "does not answer, still waiting" in text:
                told.set()

        monkeypatch.setattr(console, "_write", notice)
        outage = plane.fault(status=503, times=10**6)
        plane.on_loop(_cut(plane))
        assert told.wait(20)
        plane.change(TASKS, name, phase="Failed", reason="NodeLost", message="gone meanwhile")
        outage.times = 0
        with pytest.raises(sky.NodeLost, match="gone meanwhile"):
            future.result(20)
    lines = capsys.readouterr().err
    assert f"control plane: {plane.server} does not answer, still waiting" in lines
    assert "503" not in lines  # what each try met alternates, and would be a new line each time
    assert "control plane: answers again" in lines
    assert "nothing left running" in lines


async def _cut(plane: FakePlane) -> None:
    plane.cut_watches()


def test_a_call_made_during_an_outage_is_made_afterwards(plane: FakePlane) -> None:
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        outage = plane.fault(method="POST", status=503, times=10**6)
        result: list[int] = []
        caller = threading.Thread(target=lambda: result.append(add(1, 2) >> pool))
        caller.start()
        wait_until(lambda: outage.seen >= 3)
        outage.times = 0
        caller.join(20)
    assert result == [3]
    assert len(plane.names(TASKS)) == 1


def test_throttling_is_obeyed_and_not_shown_as_an_error(plane: FakePlane) -> None:
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        plane.fault(method="POST", path="/tasks", status=429, reason="TooManyRequests", times=2)
        assert add(2, 3) >> pool == 5
    assert len(plane.names(TASKS)) == 1


def test_a_gateway_that_moved_is_found_again(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyward.cluster.upload._PAUSE_SECONDS", 0.01)
    big = list(range(100_000))

    @sky.function
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        routes = pool._entered()[0].gateway._routes
        routes._route = replace(routes.find(), base="http://127.0.0.1:9")
        assert total(big) >> pool == sum(big)


def test_a_task_that_ends_before_its_upload_is_confirmed_says_itself_how(plane: FakePlane) -> None:
    """The answer to an upload was lost, and the task has ended with it when it is tried again."""
    plane.refuse_payload = 410
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        future = add(list(range(100_000)), []) > pool  # type: ignore[arg-type]
        plane.change(TASKS, plane.names(TASKS)[0], phase="Failed", reason="NodeLost", message="gone by now")
        with pytest.raises(sky.NodeLost, match="gone by now"):
            future.result(20)


def test_no_gateway_at_all_says_where_to_look(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyward.cluster.upload._PAUSE_SECONDS", 0.01)
    plane.drop(LEASES, "skyward-operator")
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        monkeypatch.setattr(pool._entered()[0].gateway, "_patience", 0.1)
        with pytest.raises(sky.GatewayError, match="no operator has published") as caught:
            add(list(range(100_000)), []) >> pool  # type: ignore[arg-type]
    assert "skyward local status" in str(caught.value)


def test_missing_kinds_say_what_to_apply(plane: FakePlane) -> None:
    plane.fault(path="/apis/skyward.dev/v1alpha1", status=404, reason="NotFound", times=10)
    with pytest.raises(sky.SchemaMismatch, match=r"does not serve skyward\.dev/v1alpha1") as caught:
        sky.Compute(provider=sky.Local(), options=SILENT).__enter__()
    assert "SKYWARD_CONTROL_PLANE=local" in str(caught.value)


def test_missing_kinds_of_the_embedded_control_plane_are_served_by_starting_it_again(
    plane: FakePlane,
) -> None:
    plane.fault(path="/apis/skyward.dev/v1alpha1", status=404, reason="NotFound", times=10)
    embedded = Connection(plane.server, "default", "embedded control plane", is_embedded=True)
    with Api(embedded) as api, pytest.raises(sky.SchemaMismatch) as caught:
        api.check_schema()
    assert "`skyward local down && skyward local up`" in str(caught.value)


def test_kinds_of_another_version_say_so(plane: FakePlane) -> None:
    async def put() -> None:
        annotations = {ANNOTATION_SCHEMA: "99"}
        plane.put(CRDS, {"metadata": {"name": POOL.crd_name, "annotations": annotations}})

    plane.on_loop(put())
    with pytest.raises(sky.SchemaMismatch, match="schema version 99"):
        sky.Compute(provider=sky.Local(), options=SILENT).__enter__()
    assert plane.objects.get(POOLS, {}) == {}


def test_a_broken_kubeconfig_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(sky.NoControlPlane, match="missing cannot be used") as caught:
        sky.Compute(provider=sky.Local(), options=SILENT).__enter__()
    assert caught.value.__cause__ is None
    assert "SKYWARD_CONTROL_PLANE=local" in str(caught.value)


def test_a_server_that_is_not_there_is_named_within_seconds(tmp_path: Path) -> None:
    api = Api(Connection("http://127.0.0.1:9", "default", "nowhere"))
    api.patience = 0.1
    with pytest.raises(sky.ControlPlaneError, match=r"http://127\.0\.0\.1:9 does not answer") as caught:
        api.check_schema()
    assert caught.value.__cause__ is None
    api.close()


def test_an_unknown_choice_of_control_plane_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYWARD_CONTROL_PLANE", "cloud")
    with pytest.raises(sky.NoControlPlane, match="'cloud' is not known"):
        connect(lambda _: None)


def test_operator_that_hangs_is_named_and_that_it_is_back(
    plane: FakePlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its connections, and does nothing: only its lease tells."""
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 0.2)
    told: list[str | None] = []
    original = Session.operator_silent

    def note(session: Session, since: str | None) -> None:
        original(session, since)
        told.append(since)

    def renewed(time: str) -> Object:
        lease = plane.objects[LEASES][LEASE_NAME]
        return lease | {"spec": {"holderIdentity": "one", "renewTime": time}}

    monkeypatch.setattr(Session, "operator_silent", note)
    plane.answer = lambda plane, task: {"phase": "Queued"}
    with sky.Compute(provider=sky.Local(), options=sky.Options(console="log")) as pool:
        plane.put(LEASES, renewed("1"))
        future = add(1, 2) > pool
        wait_until(lambda: len(told) == 1)
        assert told[0] is not None
        plane.put(LEASES, renewed("2"))
        wait_until(lambda: told[1:2] == [None])
        future.cancel()
    shown = capsys.readouterr().err
    assert f"operator: has not been heard of since {told[0]}" in shown
    assert "operator: is heard of again" in shown
