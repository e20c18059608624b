"""What every provider adapter must do, as tests to inherit from.

A test module for an adapter makes a class of its own:

    class TestLocal(ProviderConformance):
        @asynccontextmanager
        async def subject(self) -> AsyncIterator[Subject]: ...

`Subject` holds the adapter against a fake or recorded cloud, and makes orders for it.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from tests.fake.machines import gone, running, until

from skyward_operator.providers.contract import MachineState, Provider
from skyward_operator.providers.errors import ProviderError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import CreateRequest


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter under test."""

    provider: Provider
    request: Callable[[str, Mapping[str, str]], CreateRequest]
    """Makes an order from a token and tags."""
    good: Candidate
    impossible: Candidate
    """Something that this provider can never have."""
    unknown_id: str
    """The id of a machine that does not exist, in the provider's own form."""
    again: Callable[[], Provider]
    """The same account through a new adapter, as after a restart."""


class ProviderConformance:
    """Inherit and implement `subject`."""

    @abstractmethod
    def subject(self) -> AbstractAsyncContextManager[Subject]:
        """A fresh account without machines; whatever is left is ended on exit."""

    async def test_an_adapter_keeps_the_protocol_and_names_itself(self) -> None:
        async with self.subject() as subject:
            assert isinstance(subject.provider, Provider)
            assert subject.provider.name == subject.good.provider

    async def test_offers_carry_what_a_launch_records(self) -> None:
        async with self.subject() as subject:
            offers = await subject.provider.offers(subject.good)
            assert offers
            for offer in offers:
                assert offer.provider == subject.provider.name
                assert offer.market in ("spot", "on-demand")
                assert offer.region
                assert offer.instance_type
                assert offer.hourly_price is None or offer.hourly_price >= 0

    async def test_what_can_never_be_had_is_rejected_with_words(self) -> None:
        async with self.subject() as subject:
            with pytest.raises(Rejected, match=r"\w+"):
                await subject.provider.offers(subject.impossible)

    async def test_create_returns_at_once_and_the_machine_comes_to_run(self) -> None:
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {"a": "b"})
            async with asyncio.timeout(10):
                created = await subject.provider.create(request)
            assert created.token == request.token
            assert created.tags == request.tags
            machine = await running(subject.provider, created.id)
            assert machine.address is not None
            assert machine.token == request.token
            if subject.provider.capabilities.host_key:
                assert machine.host_key is not None

    async def test_create_again_with_the_same_token_makes_no_second_machine(self) -> None:
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {})
            first = await subject.provider.create(request)
            # The first answer was lost; a new process asks again, even several times at once.
            others = await asyncio.gather(*(subject.again().create(request) for _ in range(4)))
            assert {machine.id for machine in others} == {first.id}
            assert len((await subject.provider.list({})).machines) == 1

    async def test_machines_are_found_by_all_of_their_tags(self) -> None:
        async with self.subject() as subject:
            create = subject.provider.create
            one = await create(subject.request(secrets.token_hex(8), {"pool": "p", "node": "1"}))
            two = await create(subject.request(secrets.token_hex(8), {"pool": "p", "node": "2"}))

            async def found(tags: Mapping[str, str]) -> set[str]:
                listing = await subject.provider.list(tags)
                assert listing.complete
                return {machine.id for machine in listing.machines}

            async def visible() -> bool:
                return await found({"pool": "p"}) == {one.id, two.id}

            await until(visible, subject.provider.capabilities.visibility_seconds + 5)
            assert await found({"pool": "p", "node": "2"}) == {two.id}
            assert await found({"pool": "q"}) == set()

    async def test_machines_are_there_after_a_restart(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            await running(subject.provider, created.id)
            machine = await subject.again().describe(created.id)
            assert machine is not None
            assert machine.state is MachineState.RUNNING

    async def test_terminate_proves_absence_and_twice_is_fine(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {"x": "y"}))
            await running(subject.provider, created.id)
            await gone(subject.provider, created.id, created.token)
            left = await subject.provider.describe(created.id)
            assert left is None or left.state is MachineState.GONE
            assert await subject.provider.terminate(created.id, created.token)
            assert not (await subject.provider.list({"x": "y"})).machines

    async def test_terminate_right_after_create_leaves_nothing(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            await gone(subject.provider, created.id, created.token)
            assert not (await subject.provider.list({})).machines

    async def test_terminate_spares_a_machine_of_another_token(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            await subject.provider.terminate(created.id, "another-token")
            assert (await running(subject.provider, created.id)).token == created.token

    async def test_an_unknown_machine_is_none_and_ends_at_once(self) -> None:
        async with self.subject() as subject:
            assert await subject.provider.describe(subject.unknown_id) is None
            assert await subject.provider.terminate(subject.unknown_id, "token")

    async def test_no_error_shows_a_secret(self) -> None:
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {})
            bad = replace(request, parameters={"no-such-parameter": "secret-value-4711"})
            with pytest.raises(ProviderError) as caught:
                await subject.provider.create(bad)
            assert "secret-value-4711" not in str(caught.value)
