"""The `aws` adapter against the double of EC2: it keeps the contract, and tells its troubles apart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest
from tests.aws_double.process import KEY, ROOT, SECRET, Double, double

from skyward.agent.metadata import seconds_left
from skyward.contract.hardware import Candidate
from skyward_operator.providers.aws.interruptions import METADATA
from skyward_operator.providers.aws.provider import AwsProvider
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
    MachineState,
    Setup,
)
from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)
from skyward_operator.providers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from skyward_operator.providers.contract import Machine, Notice, Offer

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
PARAMETERS = {"sshUser": "somebody", "sshPort": "2222", "sshCidr": "127.0.0.1/32"}
WRONG_KEY = "AKIAPLANTED"
NO_CAPACITY = {"action": "RunInstances", "code": "InsufficientInstanceCapacity", "status": 500}
FAULTS: Mapping[Trouble, dict[str, Any]] = {
    Trouble.NO_CAPACITY: NO_CAPACITY,
    Trouble.QUOTA: {"action": "RunInstances", "code": "VcpuLimitExceeded"},
    Trouble.RATE_LIMIT: {"action": "RunInstances", "code": "RequestLimitExceeded", "status": 503},
    Trouble.UNAVAILABLE: {"action": "RunInstances", "code": "Unavailable", "status": 503},
    Trouble.LOST_ANSWER: {"action": "RunInstances", "effect": "lose"},
}


@pytest.fixture(scope="module")
def serving() -> Iterator[Double]:
    """One double for the module, whose machines are on paper; they run their user-data all the same."""
    with double(on_paper=True) as made:
        yield made


@pytest.fixture
def cloud(serving: Double) -> Double:
    """A fresh account there."""
    serving.reset()
    return serving


def candidate(**fields: Any) -> Candidate:
    """A candidate of AWS; a small machine unless said otherwise."""
    defaults: dict[str, Any] = {"name": "main", "provider": "aws", "parameters": PARAMETERS}
    return Candidate.read(defaults | fields)


@asynccontextmanager
async def account(cloud: Double, key: str = KEY, regions: str = "us-east-1") -> AsyncIterator[AwsProvider]:
    """An adapter for one account."""
    provider = AwsProvider(Setup(cloud.folder, cloud.credentials(key, regions)))
    try:
        yield provider
    finally:
        await provider.aclose()


async def small(provider: AwsProvider, market: str = "on-demand") -> Offer:
    """A small machine."""
    offers = await provider.offers(candidate(instanceTypes=["m5.large"]))
    return next(offer for offer in offers if offer.market == market)


def request(offer: Offer, token: str, tags: Mapping[str, str] | None = None, **fields: Any) -> CreateRequest:
    """An order for it."""
    return CreateRequest(
        offer, token, f"test-{token}", tags or {}, PUBLIC_KEY, **{"parameters": PARAMETERS, **fields}
    )


class TestAws(TroubledConformance):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _fresh(self, cloud: Double) -> None:
        self.cloud = cloud

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        made: list[AwsProvider] = []

        def adapter(key: str = KEY) -> AwsProvider:
            made.append(AwsProvider(Setup(self.cloud.folder, self.cloud.credentials(key))))
            return made[-1]

        async def trouble(kind: Trouble) -> None:
            self.cloud.faults(FAULTS[kind])

        provider = adapter()
        offer = await small(provider)
        try:
            yield Subject(
                provider=provider,
                request=lambda token, tags: request(offer, token, tags),
                good=candidate(instanceTypes=["m5.large", "g4dn.xlarge"]),
                impossible=candidate(accelerator={"name": "H1000"}),
                unknown_id="us-east-1/i-00000000000000000",
                again=adapter,
                trouble=trouble,
                stranger=lambda: adapter(WRONG_KEY),
                secrets=[SECRET, WRONG_KEY],
            )
        finally:
            for each in made:
                await each.aclose()


# Failures: may something have been bought?


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"effect": "cut"}, UnknownOutcome),
        ({"effect": "lose"}, UnknownOutcome),
        ({"code": "InternalError", "status": 500}, UnknownOutcome),
        ({"code": "InsufficientInstanceCapacity", "status": 500}, OutOfCapacity),
        ({"code": "Unsupported"}, OutOfCapacity),
        ({"code": "SpotMaxPriceTooLow"}, PriceTooHigh),
        ({"code": "MaxSpotInstanceCountExceeded"}, QuotaExceeded),
        ({"code": "VolumeLimitExceeded"}, QuotaExceeded),
        ({"code": "RequestLimitExceeded", "status": 503}, RateLimited),
        ({"code": "InvalidKeyPair.NotFound"}, Transient),
        ({"code": "InvalidParameterValue"}, Rejected),
        ({"code": "OptInRequired"}, Unauthorized),
        ({"code": "ExpiredToken"}, Unauthorized),
    ],
    ids=str,
)
async def test_after_an_order_only_an_answer_tells(
    cloud: Double, fault: Mapping[str, Any], kind: type[ProviderError]
) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        cloud.faults({"action": "RunInstances", **fault})
        with pytest.raises(ProviderError, match=r"RunInstances in us-east-1|asked for a pause") as caught:
            await provider.create(request(offer, "t"))
        assert type(caught.value) is kind or isinstance(caught.value, kind)
        async with account(cloud) as later:
            assert (await later.create(request(offer, "t"))).token == "t"
        assert cloud.audit()["bought"] == 1


@pytest.mark.parametrize("fault", [{"effect": "cut"}, {"code": "Unavailable", "status": 503}], ids=str)
@pytest.mark.parametrize(
    "action",
    ["ImportKeyPair", "CreateSecurityGroup", "DescribeInstances", "TerminateInstances", "DescribeKeyPairs"],
)
async def test_what_buys_nothing_can_be_asked_again(
    cloud: Double, action: str, fault: Mapping[str, Any]
) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        machine = await provider.create(request(offer, "t", {TAG_POOL: "p"}))
        await running(provider, machine.id)
        cloud.faults({"action": action, **fault})

        async def ask() -> object:
            match action:
                case "ImportKeyPair" | "CreateSecurityGroup":
                    return await provider.create(request(offer, "other", {TAG_POOL: "q"}))
                case "TerminateInstances":
                    return await provider.terminate(machine.id, "t")
                case "DescribeKeyPairs":
                    return await provider.clean_up({})
            return await provider.list({})

        with pytest.raises(Transient):
            await ask()
        await ask()


async def test_a_cloud_that_is_not_there_has_done_nothing(cloud: Double) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
    nowhere = cloud.credentials() | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    provider = AwsProvider(Setup(cloud.folder, nowhere))
    with pytest.raises(Transient, match="cannot be reached"):
        await provider.create(request(offer, "t"))
    await provider.aclose()


async def test_a_token_that_was_sent_with_other_parameters_gives_its_machine(cloud: Double) -> None:
    """Between two orders of one token the newest image may have become another one."""
    async with account(cloud) as provider:
        offer = await small(provider)
        first = await provider.create(request(offer, "t"))
        other = PARAMETERS | {"ami": "ami-1e749f67"}
        assert (await provider.create(request(offer, "t", parameters=other))).id == first.id
        assert cloud.audit()["bought"] == 1
        await gone(provider, first.id, "t")
        again = await provider.create(request(offer, "t"))
        assert (again.id, again.state) == (first.id, MachineState.GONE)


async def test_a_machine_that_ec2_does_not_show_yet_is_there_and_can_be_ended(cloud: Double) -> None:
    async with account(cloud) as provider:
        machine = await provider.create(request(await small(provider), "t"))
        hidden = {"action": "DescribeInstances", "code": "InvalidInstanceID.NotFound"}
        cloud.faults(hidden)
        seen = await provider.describe(machine.id)
        assert seen is not None
        assert seen.state is MachineState.PENDING
        cloud.faults(hidden)
        assert not await provider.terminate(machine.id, "t")
        await gone(provider, machine.id, "t")
        assert not cloud.audit()["alive"]


async def test_a_listing_of_many_pages_is_whole_and_a_page_that_fails_fails_it(cloud: Double) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        bought = {(await provider.create(request(offer, f"{number}"))).id for number in range(5)}
        page = {"action": "DescribeInstances", "effect": "page"}
        cloud.faults(page | {"times": 3})
        await listed(provider, {}, bought)
        cloud.faults(page, {"action": "DescribeInstances", "code": "InternalError", "status": 500})
        with pytest.raises(Transient):
            await provider.list({})


# Places


async def test_machines_of_all_regions_are_found_and_a_closed_region_fails_the_listing(cloud: Double) -> None:
    async with account(cloud, regions="us-east-1,eu-west-1") as provider:
        for region in ("us-east-1", "eu-west-1"):
            wanted = candidate(instanceTypes=["m5.large"], regions=[region])
            offer, *_ = await provider.offers(wanted)
            assert offer.region.startswith(region)
            machine = await provider.create(request(offer, f"in-{region}", {"a": "b"}))
            assert machine.id.startswith(f"{region}/i-")
        found = (await provider.list({"a": "b"})).machines
        assert {each.token for each in found} == {"in-us-east-1", "in-eu-west-1"}
        cloud.faults({"action": "DescribeInstances", "code": "UnauthorizedOperation", "region": "eu-west-1"})
        with pytest.raises(Unauthorized, match=r"ec2:DescribeInstances is missing.*SKYWARD_AWS_REGIONS"):
            await provider.list({})


async def test_a_zone_may_be_named_and_an_unknown_region_is_refused_with_what_is_near(cloud: Double) -> None:
    async with account(cloud, regions="us-east-1,eu-west-1") as provider:
        wanted = candidate(instanceTypes=["m5.large"], regions=["us-east-1c"], market="on-demand")
        (offer,) = await provider.offers(wanted)
        assert (offer.region, offer.market) == ("us-east-1c", "on-demand")
        with pytest.raises(Rejected, match=r"'eu-west-7' is no region.*did you mean eu-west-1"):
            await provider.offers(candidate(regions=["eu-west-7"]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"instanceTypes": ["m5.lareg"]}, "instanceTypes: 'm5.lareg' is no.*m5.large"),
        ({"accelerator": {"name": "L40"}}, "accelerator.name: 'L40' is no.*did you mean .*L40S"),
        ({"accelerator": {"name": "H100", "count": "3"}}, "H100 is sold by 1, 8, not by 3"),
        ({"instanceTypes": ["m5.large"], "diskGiB": 20000}, "diskGiB: 20000 asked for.*16384"),
    ],
)
async def test_what_cannot_be_had_is_refused_by_its_field(
    cloud: Double, fields: dict[str, Any], says: str
) -> None:
    async with account(cloud) as provider:
        with pytest.raises(Rejected, match=says):
            await provider.offers(candidate(**fields))


async def test_subnets_decide_the_zones_and_must_exist(cloud: Double) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        nowhere = PARAMETERS | {"subnet": "subnet-0123456789abcdef0"}
        with pytest.raises(Rejected, match=r"parameters\.subnet"):
            await provider.offers(candidate(parameters=nowhere))
        with pytest.raises(Rejected, match=r"parameters\.subnet"):
            await provider.create(request(offer, "t", parameters=nowhere))
        assert cloud.audit()["bought"] == 0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"ami": "ami-0123456789abcdef0"}, "ami-0123456789abcdef0 does not exist in us-east-1"),
        ({"amiParameter": "/no/such/parameter"}, "there is no SSM parameter /no/such/parameter"),
    ],
)
async def test_an_image_that_is_not_there_is_refused(
    cloud: Double, parameters: dict[str, str], says: str
) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        with pytest.raises(Rejected, match=says):
            await provider.create(request(offer, "t", parameters=PARAMETERS | parameters))
        assert cloud.audit()["bought"] == 0


# Prices, markets, interruptions


async def test_prices_are_those_of_the_zone_and_of_now(cloud: Double) -> None:
    async with account(cloud) as provider:
        spot = await small(provider, "spot")
        assert (spot.hourly_price, spot.on_demand_price) == (Decimal("0.0384"), Decimal("0.096"))
        cloud.spot(m5_large="0.05")
        assert (await provider.quote(spot)).hourly_price == Decimal("0.05")


async def test_without_the_price_list_prices_that_were_kept_are_taken_and_no_others_known(
    cloud: Double, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.faults({"action": "GetProducts", "code": "AccessDeniedException", "times": 99})
    async with account(cloud, regions="us-east-1,eu-west-1") as provider:
        assert (await small(provider)).hourly_price == Decimal("0.096")
        wanted = candidate(instanceTypes=["m5.large"], regions=["eu-west-1"], market="on-demand")
        assert {each.hourly_price for each in await provider.offers(wanted)} == {None}
    assert "pricing:GetProducts is missing" in caplog.text


async def test_nothing_is_ordered_on_demand_above_the_highest_price(cloud: Double) -> None:
    async with account(cloud) as provider:
        offer = await small(provider)
        before = cloud.calls().get("ec2:RunInstances", 0)
        with pytest.raises(PriceTooHigh, match=r"costs \$0\.096/h; allowed are \$0\.05/h"):
            await provider.create(request(offer, "t", max_hourly_price=Decimal("0.05")))
        assert cloud.calls().get("ec2:RunInstances", 0) == before


async def test_a_spot_machine_is_not_bought_above_the_highest_price_after_the_market_has_moved(
    cloud: Double,
) -> None:
    async with account(cloud) as provider:
        offer = await small(provider, "spot")
        cloud.spot(m5_large="0.05")
        with pytest.raises(PriceTooHigh, match="lower than the minimum required price"):
            await provider.create(request(offer, "t", max_hourly_price=offer.hourly_price))
        assert cloud.audit()["bought"] == 0


async def test_an_interruption_is_announced_by_the_api_and_inside_of_the_machine(cloud: Double) -> None:
    async with account(cloud) as provider:
        machine = await provider.create(request(await small(provider, "spot"), "t", {"a": "b"}))
        await running(provider, machine.id)
        inside = {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{cloud.endpoint}/imds/{machine.id.partition('/')[2]}"
        }
        about = {name: getattr(METADATA, name) for name in METADATA.__dataclass_fields__}
        assert await asyncio.to_thread(seconds_left, about, inside) is None
        assert not await provider.interruptions({"a": "b"})
        cloud.interrupt(machine.id, 100)

        async def announced() -> list[Notice]:
            return list(await provider.interruptions({"a": "b"}))

        (notice,) = await until(announced)
        assert notice.machine_id == machine.id
        assert not await provider.interruptions({"a": "c"})
        left = await asyncio.to_thread(seconds_left, about, inside)
        assert left is not None
        assert 0 < left <= 100
        cloud.interrupt(machine.id, 0)

        async def taken() -> Machine | None:
            seen = await provider.describe(machine.id)
            return seen if seen is not None and seen.state is MachineState.GONE else None

        assert "took the spot machine back" in (await until(taken)).message


async def test_a_region_without_machines_is_not_asked_for_interruptions(cloud: Double) -> None:
    asked = "ec2:DescribeSpotInstanceRequests"
    async with account(cloud, regions="us-east-1,eu-west-1") as provider:
        tags = {TAG_INSTALLATION: "here"}
        before = cloud.calls().get(asked, 0)
        await provider.interruptions(tags)
        assert cloud.calls()[asked] == before + 2, "nothing is known of any region"
        await provider.list(tags)
        await provider.interruptions(tags)
        assert cloud.calls()[asked] == before + 2
        await provider.create(request(await small(provider), "t", tags))
        await provider.interruptions(tags)
        assert cloud.calls()[asked] == before + 3


# Keys and groups


async def test_side_resources_carry_what_they_are_for_and_go_with_their_pool(cloud: Double) -> None:
    mine = {TAG_INSTALLATION: "here", TAG_POOL: "p", TAG_NODE: "ns/n"}
    async with account(cloud) as provider:
        offer = await small(provider)
        first = await provider.create(request(offer, "1", mine))
        await provider.create(request(offer, "2", mine | {TAG_POOL: "q"}))
        assert len(cloud.audit()["key_pairs"]) == len(cloud.audit()["groups"]) == 2
        assert not await provider.clean_up({TAG_POOL: "p"})
        assert len(cloud.audit()["key_pairs"]) == 2, "a machine uses it"
        await gone(provider, first.id, "1")
        assert await provider.clean_up({TAG_POOL: "p"})
        assert len(cloud.audit()["key_pairs"]) == len(cloud.audit()["groups"]) == 1
        assert not await provider.clean_up({TAG_INSTALLATION: "here"}), "pool q has a machine"
        assert len(cloud.audit()["key_pairs"]) == len(cloud.audit()["groups"]) == 1
        assert await provider.clean_up({TAG_INSTALLATION: "elsewhere"})


async def test_a_key_that_somebody_removed_is_made_again(cloud: Double) -> None:
    async with account(cloud) as provider, account(cloud) as other:
        offer = await small(provider)
        first = await provider.create(request(offer, "1", {TAG_POOL: "p"}))
        await gone(provider, first.id, "1")
        assert await other.clean_up({TAG_POOL: "p"})
        with pytest.raises(Transient, match=r"made again|does not show"):
            await provider.create(request(offer, "2", {TAG_POOL: "p"}))
        assert (await provider.create(request(offer, "2", {TAG_POOL: "p"}))).token == "2"


# Accounts


async def test_keys_from_a_secret_use_no_setting_of_the_operator_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET}
    provider = AwsProvider(Setup(tmp_path, keys))
    client = provider._clients._client("ec2", "us-east-1")
    assert client.meta.endpoint_url == "https://ec2.us-east-1.amazonaws.com"
    assert SECRET not in repr(provider) + repr(provider._account)
    await provider.aclose()


async def test_the_operator_s_own_identity_goes_where_its_environment_says(
    cloud: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.endpoint)
    registry = Registry(cloud.folder)
    provider = registry.provider("aws")
    assert await provider.offers(candidate(instanceTypes=["m5.large"]))
    await registry.aclose()


# The policy of the documentation


async def test_the_documented_policy_allows_exactly_what_the_adapter_calls(cloud: Double) -> None:
    """Of what it allows beyond, the document says why."""
    document = (ROOT / "docs" / "providers" / "aws.md").read_text()
    policy = json.loads(document.partition("```json\n")[2].partition("```")[0])
    actions = [statement["Action"] for statement in policy["Statement"]]
    allowed = {name for each in actions for name in ([each] if isinstance(each, str) else each)}
    before = cloud.calls()
    cloud.keys(AKIALIMITED=sorted(allowed))
    async with account(cloud, "AKIALIMITED") as provider:
        assert "us-east-1" in await provider._places.enabled()
        offer = await small(provider, "spot")
        machine = await provider.create(request(offer, "t", {TAG_POOL: "p"}))
        await running(provider, machine.id)
        await provider.interruptions({})
        await provider.console(machine.id)
        await provider.list({})
        await gone(provider, machine.id, "t")
        assert await provider.clean_up({TAG_POOL: "p"})
    called = {action for action, times in cloud.calls().items() if times > before.get(action, 0)}
    assert called <= allowed, f"not allowed: {called - allowed}"
    unused = {"ec2:CreateTags", "iam:CreateServiceLinkedRole", "iam:PassRole"}
    assert allowed - called == unused & allowed, f"allowed and never called: {allowed - called - unused}"


# A machine with a real SSH server


async def test_the_key_on_the_console_is_the_machine_s_and_one_that_powers_off_is_gone() -> None:
    with double() as cloud:
        key = asyncssh.generate_private_key("ssh-ed25519")
        public = key.export_public_key("openssh").decode().strip()
        async with account(cloud) as provider:
            offer = await small(provider)
            machine = await provider.create(
                CreateRequest(offer, "t", "real", {}, public, parameters=PARAMETERS)
            )
            machine = await running(provider, machine.id)
            assert machine.address is not None
            where = (machine.address.host, machine.address.port)
            known = asyncssh.import_known_hosts(f"* {machine.host_key}\n")
            folder = cloud.folder / "vms" / machine.id.partition("/")[2]
            told = json.loads((folder / "vm.json").read_text())
            async with asyncssh.connect(
                *where, username=told["user"], client_keys=[key], known_hosts=known, config=None
            ) as connection:
                assert (await connection.run("echo here", check=True)).stdout == "here\n"
            os.kill(told["pid"], signal.SIGKILL)

            async def ended() -> Machine | None:
                seen = await provider.describe(machine.id)
                return seen if seen is not None and seen.state is MachineState.GONE else None

            assert "powered itself off" in (await until(ended)).message
