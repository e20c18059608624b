"""What a pool could buy, over real HTTP: for those who may read the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import pool_object
from tests.fake.test_gateway import HASH, MINE, OTHERS, World

from skyward.contract.names import POOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

OFFERS = "/v1/namespaces/default/pools/{}/offers"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


async def test_the_offers_of_a_pool_are_for_those_with_its_ticket(world: World) -> None:
    async with world.http.get(world.url + OFFERS.format("pool"), headers=MINE) as answer:
        told = await answer.json()
    (offer,) = told["offers"]
    assert (offer["provider"], offer["hourlyPrice"], told["refused"]) == ("local", "0", [])
    assert "refusal" not in offer


@pytest.mark.parametrize(("headers", "status"), [(OTHERS, 403), ({}, 401)])
@pytest.mark.parametrize("name", ["pool", "unknown"])
async def test_others_learn_nothing(world: World, headers: Mapping[str, str], status: int, name: str) -> None:
    async with world.http.get(world.url + OFFERS.format(name), headers=headers) as answer:
        assert answer.status == status


async def test_a_candidate_without_an_offer_says_why(world: World) -> None:
    wrong = {"name": "far", "provider": "loca"}, {"name": "gpu", "provider": "local", "vcpus": 4096}
    body = pool_object(ticketHash=HASH, candidates=list(wrong), suspend=True)
    body["metadata"]["name"] = "plan"
    await world.api.create(POOL, body)
    async with world.http.get(world.url + OFFERS.format("plan"), headers=MINE) as answer:
        told = await answer.json()
    assert told["offers"] == []
    far, gpu = told["refused"]
    assert (far["candidate"], far["reason"]) == ("far", "ProviderUnknown")
    assert "did you mean local?" in far["message"]
    assert (gpu["reason"], "vcpus: 4096 asked for" in gpu["message"]) == ("RequestRejected", True)
