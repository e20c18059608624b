"""What programs are told of money, and how they set a budget."""

from __future__ import annotations

from typing import Any

import pytest

import skyward as sky
from skyward.manifest import Owner, pool_object
from skyward.narration import budget_words, cost_words, price_words, stalled_error
from skyward.spec import Options, Spec


def pool(cost: dict[str, Any], budget: str | None = None, **status: Any) -> dict[str, Any]:
    spec = {"budget": {"maxTotal": budget}} if budget else {}
    return {"metadata": {"name": "p", "generation": 1}, "spec": spec, "status": {"cost": cost, **status}}


@pytest.mark.parametrize(
    ("hourly", "on_demand", "words"),
    [
        ("0", "0", ""),
        ("0.012", "0.04", "$0.01/h (on demand $0.04/h)"),
        ("2", "2", "$2.00/h"),
        ("broken", "1", ""),
    ],
)
def test_the_price_of_a_pool(hourly: str, on_demand: str, words: str) -> None:
    assert price_words(pool({"hourly": hourly, "onDemandHourly": on_demand})) == words


def test_what_was_paid_and_saved() -> None:
    assert cost_words({}) == "$0.00"
    assert cost_words({"accrued": "1.234567", "saved": "0.004"}) == "$1.23"
    assert cost_words({"accrued": "1", "saved": "2.5"}) == "$1.00 ($2.50 saved against on-demand)"


def test_the_steps_of_a_budget() -> None:
    assert budget_words(pool({"accrued": "1"}, "20")) == ""
    spent = pool({"accrued": "10.2", "budgetPercent": 50}, "20")
    assert budget_words(spent) == "⚠ 50 % of the budget is spent: $10.20 of $20.00"
    assert budget_words(pool({"accrued": "10.2", "budgetPercent": 80})) == "⚠ 80 % of the budget is spent"


def test_a_budget_that_is_used_up_is_an_error_of_its_own_with_the_figures() -> None:
    condition = {"type": "Stalled", "status": "True", "reason": "BudgetExceeded", "observedGeneration": 1}
    text = "the budget of pool p is $3 and used up: $2.900000 spent"
    failures = {"reason": "BootstrapFailed", "message": "of before", "log": "of before"}
    error = stalled_error(
        pool({}, conditions=[condition], reason="BudgetExceeded", message=text, failures=failures)
    )
    assert isinstance(error, sky.BudgetExceeded)
    assert isinstance(error, sky.PoolStalled)
    assert error.message == f"pool p cannot become ready: {text}"
    assert "Raise the budget" in str(error)


def made(options: Options) -> dict[str, Any]:
    owner = Owner("run", "0" * 64)
    spec: dict[str, Any] = pool_object("p", "default", [Spec(provider=sky.Local())], options, owner)["spec"]
    return spec


def test_a_number_is_the_total() -> None:
    assert made(Options(budget=20))["budget"]["maxTotal"] == "20"
    assert "budget" not in made(Options())


def test_every_part_of_a_budget_reaches_the_pool() -> None:
    budget = sky.Budget(total=20.5, hourly=4, on_exceeded="stop", drain_seconds=120, unknown_price="allow")
    assert made(Options(budget=budget))["budget"] == {
        "maxTotal": "20.5",
        "maxHourly": "4",
        "onExceeded": "Stop",
        "drainSeconds": 120,
        "unknownPrice": "Allow",
    }


@pytest.mark.parametrize("wrong", [{"total": -1}, {"drain_seconds": 4000}, {"on_exceeded": "wait"}])
def test_a_budget_that_cannot_be_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="budget"):
        sky.Budget(**wrong)


def test_a_budget_beside_the_provider_is_shown_its_place() -> None:
    with pytest.raises(TypeError, match=r"sky\.Options\(budget=20\)"):
        sky.Compute(provider=sky.Local(), budget=20)  # type: ignore[call-arg]
