"""Which offers fit a candidate, and the words for when none does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from skyward.contract.hardware import Candidate
from skyward_operator.providers.brake import LONGEST_SECONDS, Brake
from skyward_operator.providers.contract import Accelerator, Offer
from skyward_operator.providers.errors import RateLimited, Rejected
from skyward_operator.providers.fit import fitting


def offer(
    instance_type: str, region: str = "east", accelerator: Accelerator | None = None, **fields: Any
) -> Offer:
    """Something that is sold."""
    known: dict[str, Any] = {"vcpus": 4, "memory_gib": 16, "disk_gib": 100, "architecture": "x86_64"}
    price = Decimal(1)
    return Offer(
        "acme", region, instance_type, "on-demand", price, price, accelerator=accelerator, **(known | fields)
    )


SOLD = [
    offer("small"),
    offer("small", "west"),
    offer("arm", architecture="arm64"),
    offer("large", vcpus=64, memory_gib=256, disk_gib=900),
    offer("one-h100", accelerator=Accelerator("H100", Decimal(1), 80)),
    offer("eight-h100", "west", Accelerator("H100", Decimal(8), 80)),
    offer("a100", accelerator=Accelerator("A100", Decimal(1), 40, "SXM")),
]


def candidate(**fields: Any) -> Candidate:
    """A candidate of that provider."""
    return Candidate.read({"name": "main", "provider": "acme", **fields})


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({}, ["small", "small", "arm", "large", "one-h100", "eight-h100", "a100"]),
        ({"regions": ["west"]}, ["small", "eight-h100"]),
        ({"instanceTypes": ["LARGE", "arm"]}, ["arm", "large"]),
        ({"vcpus": 5}, ["large"]),
        ({"memoryGiB": 256}, ["large"]),
        ({"diskGiB": 101}, ["large"]),
        ({"architecture": "arm64"}, ["arm"]),
        ({"accelerator": {"name": "h100"}}, ["one-h100"]),
        ({"accelerator": {"name": "H100", "count": "8"}}, ["eight-h100"]),
        ({"accelerator": {"name": "A100", "memoryGiB": 40}}, ["a100"]),
        ({"accelerator": {"name": "A100", "formFactor": "sxm"}}, ["a100"]),
    ],
)
def test_each_field_keeps_what_has_it(fields: dict[str, Any], types: list[str]) -> None:
    assert [each.instance_type for each in fitting(candidate(**fields), SOLD)] == types


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"regions": ["eastt"]}, "regions: 'eastt' is no region of acme; did you mean east, west?"),
        ({"regions": ["mars"]}, "regions: 'mars' is no region of acme; there are: east, west"),
        (
            {"instanceTypes": ["smal"]},
            "instanceTypes: 'smal' is no instance type of acme; did you mean small?",
        ),
        (
            {"instanceTypes": ["arm"], "regions": ["west"]},
            "'arm' is no instance type of acme in these regions",
        ),
        ({"vcpus": 128}, "vcpus: 128 asked for; the largest that fits the other fields has 64"),
        ({"memoryGiB": 512}, "memoryGiB: 512 asked for; the largest that fits the other fields has 256"),
        ({"architecture": "arm64", "instanceTypes": ["large"]}, "architecture: 'arm64' is no architecture"),
        ({"accelerator": {"name": "H10"}}, "accelerator.name: 'H10' is no accelerator of acme; did you mean"),
        (
            {"accelerator": {"name": "H100", "count": "3"}},
            "accelerator.count: H100 is sold by 1, 8, not by 3",
        ),
        (
            {"accelerator": {"name": "A100", "memoryGiB": 80}},
            "accelerator.memoryGiB: 80 asked for; .* has 40",
        ),
        (
            {"accelerator": {"name": "H100", "formFactor": "SXM"}},
            "accelerator.formFactor: provider acme does not tell it in its offers",
        ),
        (
            {"accelerator": {"name": "A100", "formFactor": "PCIe"}},
            "accelerator.formFactor: 'PCIe' is no form factor of A100 at acme; there are: SXM",
        ),
        ({"accelerator": {"name": "H100", "mig": "3g.40gb"}}, "accelerator.mig: provider acme does not tell"),
    ],
)
def test_what_nothing_has_is_refused_by_field_with_what_is_near(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected, match=says.replace("?", r"\?")):
        fitting(candidate(**fields), SOLD)


def test_a_provider_that_sells_nothing_is_no_mistake_of_the_candidate_s() -> None:
    assert fitting(candidate(vcpus=128), []) == []


def test_a_brake_keeps_an_account_quiet_for_as_long_as_was_asked() -> None:
    now = 0.0
    brake = Brake("acme", lambda: now)
    brake.check()
    assert brake.pull(30).retry_after == 30
    now = 29
    with pytest.raises(RateLimited, match="acme asked for a pause") as caught:
        brake.check()
    assert caught.value.retry_after == 1
    now = 30
    brake.check()


def test_a_brake_is_never_shortened_nor_pulled_for_ever() -> None:
    now = 0.0
    brake = Brake("acme", lambda: now)
    brake.pull(30)
    brake.pull(1)
    now = 29
    with pytest.raises(RateLimited):
        brake.check()
    assert brake.pull(1e9).retry_after == LONGEST_SECONDS
    assert brake.pull(None).retry_after is not None
