"""Which way leads to the gateway: by what the operator says, and where the program runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import httpx
import pytest

import skyward as sky
from skyward.cluster.connection import Connection
from skyward.cluster.route import Routes, turned_away

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE_ONLY = "http://gateway.system.svc:8080"
SERVICE = "system/gateway:8080"
PROXY = "https://cluster:6443/api/v1/namespaces/system/services/gateway:8080/proxy"
OUTSIDE = Connection(
    "https://cluster:6443", "default", "context prod", headers=lambda: {"Authorization": "x"}
)


@dataclass
class FakeApi:
    """What is read from the Lease."""

    connection: Connection
    place: tuple[str | None, str | None]

    def gateway_place(self) -> tuple[str | None, str | None]:
        return self.place


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(OUTSIDE, (INSIDE_ONLY, SERVICE))


@pytest.fixture
def routes(api: FakeApi) -> Iterator[Routes]:
    made = Routes(api)  # type: ignore[arg-type]
    yield made
    made.close()


def test_from_outside_a_service_is_reached_through_the_api_server_with_its_credentials(
    routes: Routes,
) -> None:
    route = routes.find()
    assert route.base == PROXY
    assert route.headers() == {"Authorization": "x"}


def test_a_pod_goes_there_directly_and_shows_nobody_its_credentials(routes: Routes, api: FakeApi) -> None:
    api.connection = replace(OUTSIDE, is_inside=True)
    route = routes.find()
    assert route.base == INSIDE_ONLY
    assert route.headers() == {}


def test_an_address_without_a_service_is_for_everybody(routes: Routes, api: FakeApi) -> None:
    api.place = ("https://gateway.example.com/", None)
    route = routes.find()
    assert route.base == "https://gateway.example.com"
    assert route.headers() == {}


def test_the_way_is_looked_for_again_only_when_it_was_forgotten(routes: Routes, api: FakeApi) -> None:
    assert routes.find().base == PROXY
    api.place = ("http://127.0.0.1:1", None)
    assert routes.find().base == PROXY
    routes.forget()
    assert routes.find().base == "http://127.0.0.1:1"


def test_an_api_server_that_moved_gets_connections_of_its_own(routes: Routes, api: FakeApi) -> None:
    before = routes.find()
    routes.forget()
    assert routes.find().clients is before.clients
    api.connection = replace(OUTSIDE, server="https://moved:6443", verify=ssl.create_default_context())
    routes.forget()
    after = routes.find()
    assert after.base.startswith("https://moved:6443/api/v1/")
    assert after.clients is not before.clients
    assert after.tls is api.connection.verify


@pytest.mark.parametrize("service", ["gateway", "a/b", "a/b:http", "a/../b:1/x", ""])
def test_a_service_that_is_none_is_named(routes: Routes, api: FakeApi, service: str) -> None:
    api.place = (None, service)
    with pytest.raises(sky.GatewayError, match="no Service NAMESPACE/NAME:PORT"):
        routes.find()


def test_nobody_has_said_where_it_is(routes: Routes, api: FakeApi) -> None:
    api.place = (None, None)
    with pytest.raises(sky.GatewayError, match="no operator has published"):
        routes.find()


def answer(status: int, base: str = PROXY, **body: object) -> httpx.Response:
    request = httpx.Request("GET", f"{base}/v1/logs")
    return httpx.Response(status, json=body, request=request)


def test_the_api_servers_refusals_are_told_from_the_gateways() -> None:
    refusal = turned_away(answer(403, kind="Status", message='services "gateway:8080" is forbidden'))
    assert refusal is not None
    assert 'services "gateway:8080" is forbidden' in refusal.message
    assert "skyward-gateway" in str(refusal)
    assert turned_away(answer(404, kind="Status", message="not found")) is not None
    assert turned_away(answer(503, kind="Status", message="no endpoints available")) is None  # it passes
    plain = httpx.Response(403, text="your ticket", request=httpx.Request("GET", f"{PROXY}/v1/logs"))
    assert turned_away(plain) is None
    assert turned_away(answer(403, INSIDE_ONLY, kind="Status", message="x")) is None
