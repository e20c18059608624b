"""What a pool could buy, as a program and a person on the command line ask it; and choosing by a function."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import typer
from tests.fake.sdk_plane import POOLS, FakePlane
from typer.testing import CliRunner, Result

import skyward as sky
from skyward.cli.commands import register

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.fake.kube_server import Object

APP = typer.Typer()
register(APP)
SILENT = sky.Options(console="silent")


def told(region: str, price: str, market: str = "spot", **more: Any) -> dict[str, Any]:
    """An offer as the gateway tells it."""
    fixed = {"candidate": "c0", "provider": "sim", "instanceType": "c.small", "onDemandPrice": "0.04"}
    return {**fixed, "region": region, "market": market, "hourlyPrice": price, **more}


CHEAP, NEAR = told("sim-east", "0.012"), told("sim-west", "0.04", "on-demand", refusal="none left there")
NOTHING = {
    "candidate": "c0",
    "provider": "sim",
    "reason": "PriceCapExceeded",
    "message": "candidate c0: the cheapest offer is c.small spot in sim-east at $0.012/h",
}


@pytest.fixture
def sold(plane: FakePlane) -> FakePlane:
    """Two offers for whoever asks."""
    plane.offers = lambda _: {"offers": [CHEAP, NEAR], "refused": []}
    return plane


def _run(*words: str) -> Result:
    return CliRunner().invoke(APP, list(words))


def test_offers_are_read_by_a_pool_that_buys_nothing_and_goes_again(sold: FakePlane) -> None:
    asked: list[Object] = []
    tell = sold.offers
    sold.offers = lambda pool: asked.append(pool) or tell(pool)  # type: ignore[func-returns-value]
    found = sky.offers(provider=sky.Sim(), vcpus=2, options=SILENT)
    assert [(each.region, each.hourly_price, each.refusal) for each in found] == [
        ("sim-east", Decimal("0.012"), None),
        ("sim-west", Decimal("0.04"), "none left there"),
    ]
    (pool,) = asked
    assert pool["spec"]["candidates"] == [
        {"name": "c0", "provider": "sim", "vcpus": 2, "market": "spot-if-available"}
    ]
    assert pool["spec"]["lease"]["durationSeconds"] == 60
    assert sold.names(POOLS) == []


def test_where_nothing_fits_the_error_says_why_and_what_to_do(plane: FakePlane) -> None:
    plane.offers = lambda _: {"offers": [], "refused": [NOTHING]}
    with pytest.raises(sky.PoolError, match="the cheapest offer is") as caught:
        sky.offers(provider=sky.Sim(), options=SILENT)
    assert caught.value.reason == "PriceCapExceeded"
    assert "Raise maxHourlyPrice" in str(caught.value.remedy)
    assert plane.names(POOLS) == []


def test_an_operator_that_does_not_answer_at_first_is_asked_again(sold: FakePlane) -> None:
    tell, failures = sold.offers, [ConnectionError(), ConnectionError()]

    def rough(pool: Object) -> Object:
        if failures:
            raise failures.pop()
        return tell(pool)

    sold.offers = rough
    assert len(sky.offers(provider=sky.Sim(), options=SILENT)) == 2


def choosing(choice: Callable[[Sequence[sky.Offer]], Any]) -> sky.Pool:
    """A pool whose offer is chosen by a function."""
    return sky.Compute(provider=sky.Sim(), options=sky.Options(selection=choice, console="silent"))


@pytest.mark.parametrize(
    ("choice", "regions"),
    [
        (lambda found: found[1], ["sim-west"]),
        (lambda found: sorted(found, key=lambda each: each.region, reverse=True), ["sim-west", "sim-east"]),
    ],
)
def test_a_function_chooses_which_offers_are_asked_for_in_which_order(
    sold: FakePlane, choice: Callable[[Sequence[sky.Offer]], Any], regions: list[str]
) -> None:
    with choosing(choice):
        spec = sold.only(POOLS)["spec"]
    assert spec["selection"] == "first"
    assert [each["regions"] for each in spec["candidates"]] == [[region] for region in regions]
    assert spec["candidates"][0] == {
        "name": "o0",
        "provider": "sim",
        "regions": ["sim-west"],
        "instanceTypes": ["c.small"],
        "market": "on-demand",
    }


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        (lambda found: "sim-east", TypeError, "must return an offer or a list of offers, got str"),
        (lambda found: None, TypeError, "got NoneType"),
        (lambda found: [sky.Offer("sim", "moon", "c.small", "spot")], ValueError, "that it was given"),
        (lambda found: [], sky.PoolError, "chose none of 2 offers"),
        (lambda found: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_a_choice_that_cannot_be_makes_no_pool(
    sold: FakePlane, choice: Callable[[Sequence[sky.Offer]], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words), choosing(choice):
        pass
    assert sold.names(POOLS) == []


# The command line


def test_offers_are_listed_with_what_is_not_asked_for_now(sold: FakePlane) -> None:
    shown = _run("offers", "--provider", "sim", "--accelerator", "8xH100")
    assert shown.exit_code == 0, shown.output
    _, first, second = shown.output.splitlines()
    assert first.split()[:5] == ["sim", "sim-east", "c.small", "spot", "0.012"]
    assert second.endswith("none left there")
    listed = json.loads(_run("offers", "--provider", "sim", "-o", "json").output)
    assert [each["region"] for each in listed["offers"]] == ["sim-east", "sim-west"]
    assert sold.names(POOLS) == []


def test_nothing_that_fits_is_an_exit_status_of_its_own(plane: FakePlane) -> None:
    plane.offers = lambda _: {"offers": [], "refused": [NOTHING]}
    shown = _run("offers", "--provider", "sim")
    assert (shown.exit_code, "the cheapest offer is c.small" in shown.output) == (3, True)


@pytest.mark.parametrize("words", [(), ("--provider", "sim", "--file", "pool.yaml"), ("--file", "none.yaml")])
def test_a_question_without_a_subject_is_refused(plane: FakePlane, words: tuple[str, ...]) -> None:
    assert _run("offers", *words).exit_code == 2


MANIFEST = """
apiVersion: v1
kind: Secret
metadata: {name: other}
---
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {name: train}
spec:
  candidates:
    - {name: c0, provider: sim}
  nodes: {desired: 2, max: 5}
"""


def test_a_plan_says_what_the_nodes_would_cost(sold: FakePlane, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(MANIFEST)
    shown = _run("plan", "-f", str(file))
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[:2] == [
        "pool train: the manifest is valid",
        "2 nodes of the first offer cost $0.024/h, $0.576 a day; 5 nodes, the most, $0.060/h",
    ]
    assert _run("plan", "-f", str(file), "--max-hourly", "0.024").exit_code == 0
    assert _run("plan", "-f", str(file), "--max-hourly", "0.02").exit_code == 4
    told = json.loads(_run("plan", "-f", str(file), "-o", "json").output)
    assert (told["hourly"], told["mostHourly"], len(told["offers"])) == ("0.024", "0.060", 2)
    assert sold.names(POOLS) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Secret", "it has: Secret"),
        (MANIFEST + "---" + MANIFEST, "exactly one ComputePool"),
        (MANIFEST.replace("v1alpha1", "v9"), "apiVersion must be"),
        ("{", "is no YAML"),
        ("apiVersion: skyward.dev/v1alpha1\nkind: ComputePool\nmetadata: {}", "has no spec"),
    ],
)
def test_a_manifest_that_is_none_is_refused(plane: FakePlane, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    shown = _run("plan", "-f", str(file))
    assert shown.exit_code == 2
    assert words in " ".join(shown.output.replace("│", " ").split())
