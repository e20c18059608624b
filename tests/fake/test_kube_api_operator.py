"""The life of the process where nothing goes as it should: no schema, no lease, no more lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.fake.kube_server import FakeKube, eventually

from skyward.contract.names import ANNOTATION_SCHEMA, KINDS, SCHEMA_VERSION
from skyward_operator.main import LOST_LEADERSHIP, STOPPED, Operator, Parts
from skyward_operator.settings import Address, LeaseTimes, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from skyward_operator.context import Context

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/skyward-system/leases"


class Life:
    """One operator on a fake server, and what became of it."""

    def __init__(self, kube: FakeKube, folder: Path, port: int) -> None:
        self.kube = kube
        self.context: Context | None = None
        self.left: list[int] = []
        self.health = f"http://127.0.0.1:{port}"
        self.settings = Settings(
            folder, health_listen=Address("127.0.0.1", port), lease_times=LeaseTimes(2.0, 1.0, 0.05)
        )
        self.operator = Operator(self.settings, kube.credentials(), self._wire, abandon=self.left.append)
        self.task = asyncio.create_task(self.operator.run())

    def serve_crds(self, version: str = SCHEMA_VERSION, *, established: bool = True) -> None:
        """Serve the three CRDs."""
        for kind in KINDS:
            conditions = [{"type": "Established", "status": "True" if established else "False"}]
            metadata = {"name": kind.crd_name, "annotations": {ANNOTATION_SCHEMA: version}}
            self.kube.put(CRDS, {"metadata": metadata, "status": {"conditions": conditions}})

    def holds(self, name: str) -> None:
        """Let another hold the lease."""
        spec = {"holderIdentity": name, "leaseDurationSeconds": 60}
        self.kube.put(LEASES, {"metadata": {"name": "skyward-operator"}, "spec": spec})

    async def says(self, words: str) -> None:
        """Wait until /readyz says so."""
        async with aiohttp.ClientSession() as http, asyncio.timeout(10):
            while words not in await self._ask(http):  # noqa: ASYNC110 - another server is asked
                await asyncio.sleep(0.02)

    async def _ask(self, http: aiohttp.ClientSession) -> str:
        try:
            async with http.get(self.health + "/readyz") as response:
                return await response.text()
        except aiohttp.ClientConnectionError:
            return ""

    def _wire(self, context: Context) -> Parts:
        self.context = context

        async def loop() -> None:
            await asyncio.Event().wait()

        async def url() -> str:
            return "http://gateway.invalid"

        return Parts({"loop": loop}, url)


@pytest.fixture
async def life(tmp_path: Path, unused_port: int) -> AsyncIterator[Life]:
    async with FakeKube() as kube:
        subject = Life(kube, tmp_path, unused_port)
        yield subject
        if not subject.task.done():
            subject.task.cancel()
        await asyncio.wait({subject.task})


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_nothing_is_touched_before_the_schema_is_served(life: Life) -> None:
    await life.says("awaiting schema: the CRD computepools.skyward.dev is missing; apply the CRDs")
    life.serve_crds("0")
    await life.says("has schema version 0")
    assert life.kube.count("POST") == life.kube.count("PATCH") == 0
    life.serve_crds(established=False)
    await life.says("is not established yet")
    life.serve_crds()

    await life.says("ready")


async def test_a_standby_says_so_and_stops_when_told(life: Life) -> None:
    life.serve_crds()
    life.holds("another")
    await life.says("standby")
    assert life.context is None
    life.operator.stop()

    assert await life.task == STOPPED
    assert life.kube.objects[LEASES]["skyward-operator"]["spec"]["holderIdentity"] == "another"


async def test_the_process_is_abandoned_when_the_lease_is_taken(life: Life) -> None:
    life.serve_crds()
    await life.says("ready")
    life.holds("another")

    await eventually(lambda: life.left and life.left[0] == LOST_LEADERSHIP)
    assert await life.task == LOST_LEADERSHIP
    assert life.kube.objects[LEASES]["skyward-operator"]["spec"]["holderIdentity"] == "another"


async def test_the_process_is_abandoned_when_the_lease_cannot_be_renewed(life: Life) -> None:
    life.serve_crds()
    await life.says("ready")
    life.kube.fault(path="/leases", status=503, times=10_000)

    await eventually(lambda: life.left and life.left[0] == LOST_LEADERSHIP)


async def test_a_write_after_the_deadline_abandons_the_process(life: Life) -> None:
    life.serve_crds()
    await life.says("ready")
    context = life.context
    assert context is not None

    async def write() -> None:
        context.leadership._renewed -= 1000  # the process was frozen for that long
        await context.api.patch(KINDS[0], "default", "x", {})

    before: Any = life.kube.count("PATCH", "/computepools")
    context.supervisor.spawn("late write", write())

    await eventually(lambda: life.left and life.left[0] == LOST_LEADERSHIP)
    assert life.kube.count("PATCH", "/computepools") == before


async def test_becoming_ready_survives_a_server_that_throttles(life: Life) -> None:
    life.kube.fault(path="/v1alpha1/", query="limit", status=429, headers={"Retry-After": "0"}, times=5)
    life.serve_crds()

    await life.says("ready")
    assert life.settings.endpoints_file.exists()
