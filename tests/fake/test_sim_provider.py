"""The `sim` adapter against the simulated cloud: it keeps the contract, on both kinds of account."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.sim_cloud import KEY, STAFF, Sim, sim_cloud

from skyward.contract.hardware import Candidate
from skyward_operator.providers.conformance import (
    Subject,
    Trouble,
    TroubledConformance,
    gone,
    listed,
    running,
    until,
)
from skyward_operator.providers.contract import (
    TAG_INSTALLATION,
    TAG_NODE,
    TAG_POOL,
    CreateRequest,
    Setup,
)
from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    ProviderError,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)
from skyward_operator.providers.registry import Registry
from skyward_operator.providers.sim.provider import SimProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from skyward_operator.providers.contract import Notice, Offer

CREATE_FAULTS: Mapping[Trouble, dict[str, Any]] = {
    Trouble.NO_CAPACITY: {"effect": "no-capacity"},
    Trouble.QUOTA: {"effect": "quota"},
    Trouble.RATE_LIMIT: {"effect": "rate-limit", "seconds": 1},
    Trouble.UNAVAILABLE: {"effect": "unavailable"},
    Trouble.LOST_ANSWER: {"effect": "lose-answer"},
}


def candidate(**fields: Any) -> Candidate:
    """A candidate of the simulated cloud."""
    return Candidate.read({"name": "main", "provider": "sim", **fields})


@asynccontextmanager
async def account(sim: Sim, key: str = "default-key", profile: str = "full") -> AsyncIterator[SimProvider]:
    """An adapter for one account."""
    provider = SimProvider(setup(sim, key, profile))
    try:
        yield provider
    finally:
        await provider.aclose()


def setup(sim: Sim, key: str = "default-key", profile: str = "full") -> Setup:
    """What the adapter is made from."""
    return Setup(sim.folder, {"endpoint": sim.service.endpoint, "key": key, "profile": profile})


async def small(provider: SimProvider, market: str = "on-demand") -> Offer:
    """The smallest machine."""
    offers = await provider.offers(candidate(regions=["sim-east"], instanceTypes=["c.small"]))
    return next(offer for offer in offers if offer.market == market)


def request(offer: Offer, token: str, tags: Mapping[str, str] | None = None, **fields: Any) -> CreateRequest:
    """An order for it."""
    return CreateRequest(offer, token, f"test-{token}", tags or {}, KEY, **fields)


@asynccontextmanager
async def subject(profile: str, key: str) -> AsyncIterator[Subject]:
    """The adapter under test, for an account of a profile."""
    providers: list[SimProvider] = []

    async with sim_cloud(ssh=True) as sim:

        def adapter(key: str = key) -> SimProvider:
            providers.append(SimProvider(setup(sim, key, profile)))
            return providers[-1]

        async def trouble(kind: Trouble) -> None:
            fault = {"at": "create", "times": 1, **CREATE_FAULTS[kind]}
            await sim.staff("PUT", "/scenario", json={"faults": [fault]})

        provider = adapter()
        offer = await small(provider)
        try:
            yield Subject(
                provider=provider,
                request=lambda token, tags: request(offer, token, tags),
                good=candidate(),
                impossible=candidate(accelerator={"name": "H1000"}),
                unknown_id="sim-000000000000",
                again=adapter,
                trouble=trouble,
                stranger=lambda: adapter("planted-wrong-key"),
                secrets=[key, "planted-wrong-key", STAFF],
            )
        finally:
            for each in providers:
                await each.aclose()


class TestFullAccount(TroubledConformance):
    """Like the large clouds."""

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        async with subject("full", "default-key") as made:
            yield made


class TestUserDataAccount(TroubledConformance):
    """Like the large clouds that show no host keys and run user-data."""

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        async with subject("user-data", "user-data-key") as made:
            yield made


class TestBareAccount(TroubledConformance):
    """Like most clouds that rent out GPUs: no tokens, no host keys, listings that lag."""

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        async with subject("bare", "bare-account-key") as made:
            yield made


# Failures: may something have been done?


@pytest.mark.parametrize(
    ("effect", "kind"),
    [
        ("cut", UnknownOutcome),
        ("lose-answer", UnknownOutcome),
        ("internal-error", UnknownOutcome),
        ("lose-with-error", UnknownOutcome),
        ("unavailable", UnknownOutcome),
        ("unauthorized", Unauthorized),
        ("no-capacity", OutOfCapacity),
    ],
)
async def test_after_a_create_only_an_answer_tells(effect: str, kind: type[ProviderError]) -> None:
    fault = {"at": "create", "effect": effect, "times": 1}
    async with sim_cloud(scenario={"faults": [fault]}) as sim, account(sim) as provider:
        offer = await small(provider)
        with pytest.raises(kind):
            await provider.create(request(offer, "t"))
        assert (await provider.create(request(offer, "t"))).token == "t"
        assert sim.audit().bought == 1


@pytest.mark.parametrize("effect", ["cut", "lose-answer", "internal-error", "unavailable"])
@pytest.mark.parametrize("at", ["side", "list", "describe", "terminate", "offers", "notices"])
async def test_what_buys_nothing_can_be_asked_again(at: str, effect: str) -> None:
    async with sim_cloud() as sim, account(sim) as provider:
        offer = await small(provider)
        machine = await provider.create(request(offer, "t"))
        await running(provider, machine.id)
        await sim.staff("PUT", "/scenario", json={"faults": [{"at": at, "effect": effect, "times": 1}]})

        async def ask() -> object:
            match at:
                case "side":
                    return await provider.create(request(offer, "other"))
                case "list":
                    return await provider.list({})
                case "describe":
                    return await provider.describe(machine.id)
                case "terminate":
                    return await provider.terminate(machine.id, "t")
                case "offers":
                    return await provider.offers(candidate())
            return await provider.interruptions({})

        with pytest.raises(Transient):
            await ask()
        await ask()


async def test_a_cloud_that_is_not_there_has_done_nothing() -> None:
    async with sim_cloud() as sim, account(sim) as provider:
        offer = await small(provider)
        await sim.service.stop()
        with pytest.raises(Transient, match="cannot be reached"):
            await provider.create(request(offer, "t"))


async def test_a_permission_that_is_missing_is_named() -> None:
    async with sim_cloud() as sim, account(sim, "reader-account-key") as provider:
        offer = await small(provider)
        with pytest.raises(Unauthorized, match="'side'"):
            await provider.create(request(offer, "t"))


async def test_a_listing_of_many_pages_is_whole_and_a_partial_one_says_so() -> None:
    async with sim_cloud(scenario={"page_size": 2}) as sim, account(sim) as provider:
        offer = await small(provider)
        bought = {(await provider.create(request(offer, f"{number}"))).id for number in range(5)}
        await listed(provider, {}, bought)
        fault = {"at": "list", "effect": "partial", "fraction": 0.4}
        await sim.staff("PUT", "/scenario", json={"faults": [fault], "page_size": 2})
        listing = await provider.list({})
        assert (len(listing.machines), listing.complete) == (3, False)


async def test_a_page_that_fails_fails_the_listing() -> None:
    fault = {"at": "list", "effect": "internal-error", "skip": 1}
    async with sim_cloud(scenario={"page_size": 1, "faults": [fault]}) as sim, account(sim) as provider:
        offer = await small(provider)
        for number in range(2):
            await provider.create(request(offer, f"{number}"))
        with pytest.raises(Transient):
            await provider.list({})


# Markets, money, interruptions


async def test_an_interruption_is_announced_with_its_time() -> None:
    async with sim_cloud() as sim, account(sim) as provider:
        machine = await provider.create(request(await small(provider, "spot"), "t", {"a": "b"}))
        await running(provider, machine.id)
        await sim.staff("POST", f"/instances/{machine.id}/interrupt", json={"notice_seconds": 120})

        async def announced() -> list[Notice]:
            return list(await provider.interruptions({"a": "b"}))

        (notice,) = await until(announced)
        assert notice.machine_id == machine.id
        assert 115 < notice.at.timestamp() - sim.service.cloud.clock.now() <= 120
        assert not await provider.interruptions({"a": "c"})


async def test_nothing_is_bought_above_the_highest_price_even_if_the_market_has_moved() -> None:
    change = {"after_seconds": 0, "instance_type": "c.small", "market": "spot", "hourly": "9"}
    async with sim_cloud() as sim, account(sim) as provider:
        offer = await small(provider, "spot")
        await sim.staff("PUT", "/scenario", json={"prices": [change]})

        async def moved() -> bool:
            return (await provider.quote(offer)).hourly_price == 9

        await until(moved)
        with pytest.raises(PriceTooHigh, match=r"9/h, more than the 0\.0120/h"):
            await provider.create(request(offer, "t", max_hourly_price=offer.hourly_price))
        assert sim.audit().bought == 0


async def test_side_resources_carry_what_they_are_for_and_go_with_their_pool() -> None:
    mine = {TAG_INSTALLATION: "here", TAG_POOL: "p", TAG_NODE: "ns/n"}
    async with sim_cloud() as sim, account(sim) as provider:
        offer = await small(provider)
        first = await provider.create(request(offer, "1", mine))
        await provider.create(request(offer, "2", mine | {TAG_POOL: "q"}))
        tags = [resource.tags for resource in sim.service.cloud.state.side.values()]
        assert {TAG_INSTALLATION: "here", TAG_POOL: "p"} in tags
        assert not any(TAG_NODE in each for each in tags)
        scope = {TAG_INSTALLATION: "here", TAG_POOL: "p"}
        assert not await provider.clean_up(scope)
        await gone(provider, first.id, "1")
        assert await provider.clean_up(scope)
        left = [resource.tags[TAG_POOL] for resource in sim.service.cloud.state.side.values()]
        assert left == ["q", "q"]


# Accounts


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        ({"endpoint": "http://127.0.0.1:1"}, "key missing in the Secret"),
        ({"key": "planted"}, "endpoint missing in the Secret"),
        ({"key": "planted", "endpoint": "ftp://x"}, "not a URL"),
        (
            {"key": "planted", "endpoint": "http://127.0.0.1:1", "profile": "golden"},
            "none of full, user-data, bare",
        ),
        ({}, "SKYWARD_SIM_ENDPOINT, SKYWARD_SIM_KEY"),
    ],
)
def test_credentials_that_lack_something_are_refused_by_name(
    credentials: dict[str, str], says: str, tmp_path: Any
) -> None:
    with pytest.raises(Unauthorized, match=says) as caught:
        SimProvider(Setup(tmp_path, credentials))
    assert "planted" not in str(caught.value)


async def test_the_operator_s_own_key_never_goes_to_an_endpoint_from_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    async with sim_cloud() as sim:
        monkeypatch.setenv("SKYWARD_SIM_ENDPOINT", sim.service.endpoint)
        monkeypatch.setenv("SKYWARD_SIM_KEY", "default-key")
        own = SimProvider(Setup(tmp_path))
        assert await own.offers(candidate())
        await own.aclose()
        with pytest.raises(Unauthorized, match="key missing in the Secret"):
            SimProvider(Setup(tmp_path, {"endpoint": "http://127.0.0.1:1"}))


async def test_the_registry_finds_the_adapter_by_its_entry_point(tmp_path: Any) -> None:
    async with sim_cloud() as sim:
        registry = Registry(tmp_path)
        assert {"local", "sim"} <= set(registry.names)
        provider = registry.provider("sim", setup(sim).credentials)
        assert await provider.offers(candidate())
        assert registry.provider("sim", setup(sim).credentials) is provider
        await registry.aclose()


async def test_a_parameter_that_does_not_exist_is_refused_before_anything_is_asked(tmp_path: Any) -> None:
    provider = SimProvider(Setup(tmp_path, {"endpoint": "http://127.0.0.1:1", "key": "k"}))
    with pytest.raises(Rejected, match="sshServer"):
        await provider.offers(candidate(parameters={"sshServer": "x"}))
    assert secrets.token_hex(2) not in repr(provider)
    await provider.aclose()
