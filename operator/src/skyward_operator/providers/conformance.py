"""What every provider adapter must do, as tests to inherit from; for adapters of third parties, too.

A test module for an adapter makes a class of its own (pytest with pytest-asyncio in its `auto` mode):

    pytest.register_assert_rewrite("skyward_operator.providers.conformance")  # in conftest.py

    class TestMine(ProviderConformance):
        @asynccontextmanager
        async def subject(self) -> AsyncIterator[Subject]: ...

`Subject` holds the adapter against a fake or recorded cloud, and makes orders for it. An adapter whose double
can be made to fail inherits `TroubledConformance`, which has these tests and those of its errors.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import pytest

from skyward_operator.providers.contract import MachineState, Provider
from skyward_operator.providers.errors import (
    OutOfCapacity,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import CreateRequest, Machine

PATIENCE = 20.0


class Trouble(StrEnum):
    """What a double can be asked to do to the next create, once."""

    NO_CAPACITY = "no capacity"
    QUOTA = "quota"
    RATE_LIMIT = "rate limit, with a pause of a second"
    UNAVAILABLE = "unwell, nothing done"
    LOST_ANSWER = "done, and the answer lost"


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
    trouble: Callable[[Trouble], Awaitable[None]] | None = None
    """Has the next create meet this, once. TroubledConformance needs it."""
    stranger: Callable[[], Provider] | None = None
    """An adapter with wrong credentials. TroubledConformance needs it."""
    secrets: Sequence[str] = field(default_factory=tuple, repr=False)
    """What no error may show."""


class ProviderConformance:
    """Inherit and implement `subject`."""

    @abstractmethod
    def subject(self) -> AbstractAsyncContextManager[Subject]:
        """A fresh account without machines; whatever is left is ended on exit."""

    async def test_an_adapter_keeps_the_protocol_and_names_itself(self) -> None:
        async with self.subject() as subject:
            assert isinstance(subject.provider, Provider)
            assert subject.provider.name == subject.good.provider

    async def test_what_an_adapter_declares_fits_together(self) -> None:
        async with self.subject() as subject:
            can = subject.provider.capabilities
            assert 0 <= can.visibility_seconds <= 600
            assert can.tags or can.idempotency_token, "an answer that is lost can never be found again"
            assert can.interruption_notice_seconds is None or can.spot

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
                assert subject.provider.capabilities.spot or offer.market == "on-demand"

    async def test_a_quote_is_the_offer_at_the_price_in_force(self) -> None:
        async with self.subject() as subject:
            offer, *_ = await subject.provider.offers(subject.good)
            quoted = await subject.provider.quote(offer)
            assert replace(quoted, hourly_price=offer.hourly_price) == offer
            assert quoted.hourly_price is None or quoted.hourly_price >= 0

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
        """Where the provider does not see to it, the machine of a token can be found, whoever asks."""
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {"token": "t"})
            first = await subject.provider.create(request)
            can = subject.provider.capabilities
            if can.idempotency_token:
                # The first answer was lost; a new process asks again, even several times at once.
                others = await asyncio.gather(*(subject.again().create(request) for _ in range(4)))
                assert {machine.id for machine in others} == {first.id}
            await listed(subject.again(), {"token": "t"}, {first.id})

    async def test_a_token_whose_machine_has_ended_buys_no_second_one(self) -> None:
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {})
            created = await subject.provider.create(request)
            await gone(subject.provider, created.id, created.token)
            if subject.provider.capabilities.idempotency_token:
                try:
                    answer = await subject.provider.create(request)
                except Rejected:
                    pass
                else:
                    assert (answer.id, answer.state) == (created.id, MachineState.GONE)
            await listed(subject.provider, {}, set())

    async def test_machines_are_found_by_all_of_their_tags(self) -> None:
        async with self.subject() as subject:
            create = subject.provider.create
            one = await create(subject.request(secrets.token_hex(8), {"pool": "p", "node": "1"}))
            two = await create(subject.request(secrets.token_hex(8), {"pool": "p", "node": "2"}))
            await listed(subject.provider, {"pool": "p"}, {one.id, two.id})
            await listed(subject.provider, {"pool": "p", "node": "2"}, {two.id})
            await listed(subject.provider, {"pool": "q"}, set())

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
            await listed(subject.provider, {"x": "y"}, set())

    async def test_terminate_right_after_create_leaves_nothing(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            await gone(subject.provider, created.id, created.token)
            await listed(subject.provider, {}, set())

    async def test_terminate_spares_a_machine_of_another_token(self) -> None:
        async with self.subject() as subject:
            created = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            await subject.provider.terminate(created.id, "another-token")
            assert (await running(subject.provider, created.id)).token == created.token

    async def test_an_unknown_machine_is_none_silent_and_ends_at_once(self) -> None:
        async with self.subject() as subject:
            assert await subject.provider.describe(subject.unknown_id) is None
            assert await subject.provider.terminate(subject.unknown_id, "token")
            assert await subject.provider.console(subject.unknown_id) == ""

    async def test_no_interruption_is_announced_for_machines_that_stay(self) -> None:
        async with self.subject() as subject:
            await subject.provider.create(subject.request(secrets.token_hex(8), {"a": "b"}))
            assert not await subject.provider.interruptions({"a": "b"})

    async def test_side_resources_stay_as_long_as_a_machine_and_no_longer(self) -> None:
        async with self.subject() as subject:
            first, second = [
                await subject.provider.create(subject.request(secrets.token_hex(8), {})) for _ in range(2)
            ]
            await gone(subject.provider, first.id, first.token)
            await subject.provider.clean_up({})
            third = await subject.provider.create(subject.request(secrets.token_hex(8), {}))
            for machine in (second, third):
                await running(subject.provider, machine.id)
                await gone(subject.provider, machine.id, machine.token)
            assert await subject.provider.clean_up({})
            assert await subject.provider.clean_up({}), "a second time is fine"

    async def test_no_error_shows_a_secret(self) -> None:
        async with self.subject() as subject:
            request = subject.request(secrets.token_hex(8), {})
            bad = replace(request, parameters={"no-such-parameter": "secret-value-4711"})
            with pytest.raises(ProviderError) as caught:
                await subject.provider.create(bad)
            assert "secret-value-4711" not in told(caught.value)


class TroubledConformance(ProviderConformance):
    """For adapters whose double can fail on demand: every failure says what the caller should do next."""

    @pytest.mark.parametrize(
        ("trouble", "kinds"),
        [
            (Trouble.NO_CAPACITY, (OutOfCapacity,)),
            (Trouble.QUOTA, (QuotaExceeded,)),
            # a 5xx without any word tells nothing about what was done
            (Trouble.UNAVAILABLE, (Transient, UnknownOutcome)),
        ],
    )
    async def test_a_refusal_has_the_kind_that_says_what_to_do(
        self, trouble: Trouble, kinds: tuple[type[ProviderError], ...]
    ) -> None:
        async with self.subject() as subject:
            await bring(subject, trouble)
            request = subject.request(secrets.token_hex(8), {})
            with pytest.raises(kinds, match=r"\w+"):
                await subject.provider.create(request)
            await listed(subject.provider, {}, set())
            created = await subject.provider.create(request)
            await listed(subject.provider, {}, {created.id})

    async def test_a_rate_limit_says_when_and_keeps_the_whole_account_quiet(self) -> None:
        async with self.subject() as subject:
            await bring(subject, Trouble.RATE_LIMIT)
            request = subject.request(secrets.token_hex(8), {})
            with pytest.raises(RateLimited) as caught:
                await subject.provider.create(request)
            assert caught.value.retry_after is not None
            with pytest.raises(RateLimited):
                await subject.provider.list({})

            async def created() -> Machine | None:
                try:
                    return await subject.provider.create(request)
                except RateLimited:
                    return None

            machine = await until(created)
            await listed(subject.provider, {}, {machine.id})

    async def test_a_lost_answer_is_unknown_and_its_machine_is_found(self) -> None:
        async with self.subject() as subject:
            await bring(subject, Trouble.LOST_ANSWER)
            token = secrets.token_hex(8)
            request = subject.request(token, {"token": token})
            with pytest.raises(UnknownOutcome, match=r"\w+"):
                await subject.provider.create(request)
            found = await until(lambda: only_one(subject.again(), {"token": token}))
            assert found.token == token
            if subject.provider.capabilities.idempotency_token:
                assert (await subject.provider.create(request)).id == found.id
            await gone(subject.provider, found.id, token)

    async def test_wrong_credentials_are_told_and_never_shown(self) -> None:
        async with self.subject() as subject:
            assert subject.stranger is not None
            with pytest.raises(Unauthorized) as caught:
                await subject.stranger().offers(subject.good)
            assert not any(secret in told(caught.value) for secret in subject.secrets)
            assert not any(secret in repr(subject.provider) for secret in subject.secrets)


async def bring(subject: Subject, trouble: Trouble) -> None:
    """Have the double fail."""
    assert subject.trouble is not None, "TroubledConformance needs Subject.trouble"
    await subject.trouble(trouble)


async def only_one(provider: Provider, tags: Mapping[str, str]) -> Machine | None:
    """The one machine with these tags, once it is listed."""
    machines = (await provider.list(tags)).machines
    assert len(machines) <= 1, f"bought twice: {machines}"
    return machines[0] if machines else None


async def listed(provider: Provider, tags: Mapping[str, str], wanted: set[str]) -> None:
    """Wait until exactly these machines are listed, as long as a listing may lag; nothing else ever is."""

    async def look() -> bool:
        listing = await provider.list(tags)
        return listing.complete and {machine.id for machine in listing.machines} == wanted

    await until(look, provider.capabilities.visibility_seconds + 5)


async def running(provider: Provider, machine_id: str) -> Machine:
    """The machine once it runs and has an address."""

    async def look() -> Machine | None:
        machine = await provider.describe(machine_id)
        assert machine is not None, f"{machine_id} does not exist"
        assert machine.state is not MachineState.GONE, machine.message
        return machine if machine.state is MachineState.RUNNING and machine.address else None

    return await until(look)


async def gone(provider: Provider, machine_id: str, token: str) -> None:
    """End a machine and wait until its provider proves that it is gone."""

    async def look() -> bool:
        return await provider.terminate(machine_id, token)

    await until(look)


async def until[T](look: Callable[[], Awaitable[T | None]], seconds: float = PATIENCE) -> T:
    """Wait until `look` finds something."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.01)
        return found


def told(error: BaseException | None) -> str:
    """All that an error and its causes say."""
    text = ""
    while error is not None:
        text += f"{error}\n{error!r}\n"
        error = error.__cause__ or error.__context__
    return text
