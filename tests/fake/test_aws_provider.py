"""The `aws` adapter against the double of EC2: it keeps the contract, and tells its troubles apart."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.aws_double.process import KEY, SECRET, Double, double

from skyward.contract.hardware import Candidate
from skyward_operator.providers.aws.provider import AwsProvider
from skyward_operator.providers.conformance import (
    Subject,
    Trouble,
    TroubledConformance,
)
from skyward_operator.providers.contract import (
    CreateRequest,
    Setup,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from skyward_operator.providers.contract import Offer

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
