"""What is made beside the machines goes with the last node that used it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fake.kube_server import eventually
from tests.fake.nodes_plane import plane

from skyward_operator.providers.contract import TAG_POOL
from skyward_operator.providers.errors import OutOfCapacity, ProviderError, Rejected, Transient, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.providers.contract import CreateRequest


async def test_a_node_cleans_up_after_its_machine_is_gone_and_for_its_pool_only() -> None:
    async with plane() as world:
        asked: list[tuple[Mapping[str, str], int]] = []

        def clean(tags: Mapping[str, str]) -> bool:
            asked.append((tags, len(list((world.place.root / "vms").glob("local-*")))))
            return True

        world.provider.cleaning = clean
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            assert asked == []
            world.delete(operator)
            await world.gone()
        assert asked == [({TAG_POOL: "pool-uid"}, 0)]


async def test_a_node_whose_order_was_refused_cleans_up_what_was_made_for_it() -> None:
    async with plane() as world:
        asked: list[Mapping[str, str]] = []

        def refuse(_: CreateRequest) -> None:
            raise OutOfCapacity("none left")

        world.provider.before = refuse
        world.provider.cleaning = lambda tags: not asked.append(tags)  # type: ignore[func-returns-value]
        world.node()
        async with world.operator() as operator:
            await eventually(lambda: world.status().get("reason") == "InsufficientCapacity", 20)
            world.delete(operator)
            await world.gone()
        assert len(asked) == 1


async def test_a_provider_that_is_unwell_is_asked_again_before_the_object_goes() -> None:
    async with plane() as world:
        answers: list[ProviderError] = [Transient("unwell")]

        def clean(_: Mapping[str, str]) -> bool:
            if answers:
                raise answers.pop()
            return True

        world.provider.cleaning = clean
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            world.delete(operator)
            await world.gone()
        assert answers == []


@pytest.mark.parametrize("error", [Rejected("no permission"), Unauthorized("the key was revoked")])
async def test_what_is_refused_for_good_is_left_behind_and_told(error: ProviderError) -> None:
    async with plane() as world:

        def clean(_: Mapping[str, str]) -> bool:
            raise error

        world.provider.cleaning = clean
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            world.delete(operator)
            await world.gone()
            text = f"keys and groups of pool p are left at local: {error}"
            await eventually(lambda: text in [event["message"] for event in world.events()])
