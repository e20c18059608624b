"""Money from a person's side: what a pool costs, and what becomes of it when a budget is used up."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.front_door import MINUTES, Person, until
from tests.cluster.sim_process import Cloud, cloud, customer

from skyward_operator.money.purse import LIMITS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(10 * MINUTES)

POOL = """
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {name: metered}
spec:
  candidates:
    - {name: cloud, provider: sim, instanceTypes: [c.small], regions: [sim-west], market: on-demand}
  nodes: {desired: 1}
  budget: {maxTotal: "1.00", drainSeconds: 60}
---
apiVersion: skyward.dev/v1alpha1
kind: Task
metadata: {name: before}
spec:
  poolRef: {name: metered}
  function:
    source: |
      import pathlib, time, skyward as sky
      def work():
          while sky.current().stopping is None:
              time.sleep(0.05)
          return [sky.current().stopping, sky.current().seconds_left > 0]
    name: work
"""
AFTER = """
apiVersion: skyward.dev/v1alpha1
kind: Task
metadata: {name: after}
spec:
  poolRef: {name: metered}
  function: {entrypoint: "math:factorial", args: [5]}
"""
PROGRAM = """
import sys, skyward as sky
budget = float(sys.argv[1])
options = sky.Options(console="log", budget=budget)
try:
    with sky.Compute(provider=sky.Sim(region="sim-east"), name=sys.argv[2], options=options) as pool:
        print("sum", sum(pool.map(abs, range(-3, 0))))
except sky.BudgetExceeded as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def sky() -> Iterator[Cloud]:
    """One cloud for the module."""
    with cloud() as made:
        yield made


@pytest.fixture(scope="module")
def person(sky: Cloud) -> Iterator[Person]:
    """Somebody whose operator has an account at that cloud."""
    with customer(sky) as somebody:
        yield somebody


def pool(person: Person, name: str) -> dict[str, Any]:
    """A pool's status."""
    found: dict[str, Any] = json.loads(person.kubectl("get", "skp", name, "-o", "json"))["status"]
    return found


def spent(person: Person) -> Decimal:
    """What is written down for the default namespace."""
    where = ("get", "configmap", "skyward-operator-spending", "-n", "skyward-system", "-o", "json")
    return Decimal(json.loads(json.loads(person.kubectl(*where))["data"]["default"])["total"])


def test_a_pool_whose_budget_is_used_up_is_drained_with_notice_and_goes_on_once_it_is_raised(
    person: Person, sky: Cloud
) -> None:
    """The budget is lowered while a call runs: that is the same as the moment in which it is used up."""
    manifest = person.folder / "metered.yaml"
    manifest.write_text(POOL)
    person.kubectl("apply", "-f", manifest)
    person.kubectl("wait", "--for=condition=Running", "task/before", "--timeout=120s")
    assert Decimal(pool(person, "metered")["cost"]["hourly"]) == Decimal("0.04")
    assert "0.04" in person.kubectl("get", "skp", "metered")
    assert "/1.00" in person.kubectl("get", "skp", "metered")

    person.kubectl("patch", "skp", "metered", "--type=merge", "-p", '{"spec": {"budget": {"maxTotal": "0"}}}')
    person.kubectl("wait", "--for=condition=BudgetExceeded", "skp/metered", "--timeout=60s")
    person.kubectl("wait", "--for=condition=Succeeded", "task/before", "--timeout=60s")
    value = person.kubectl("get", "task", "before", "-o", "jsonpath={.status.result.value}")
    assert json.loads(value) == ["budget", True]
    until(lambda: not sky.audit()[1]["alive"], 90)
    status = pool(person, "metered")
    assert (status["phase"], status["reason"]) == ("Stalled", "BudgetExceeded")
    assert "Raise the budget" in status["message"]
    assert sky.audit()[1]["bought"] == 1

    (person.folder / "after.yaml").write_text(AFTER)
    person.kubectl("apply", "-f", person.folder / "after.yaml")
    waiting = ("get", "task", "after", "-o", "jsonpath={.status.message}")
    until(lambda: "budget of pool metered" in person.kubectl(*waiting), 90)
    person.kubectl("patch", "skp", "metered", "--type=merge", "-p", '{"spec": {"budget": {"maxTotal": "1"}}}')
    person.kubectl("wait", "--for=condition=Succeeded", "task/after", "--timeout=120s")
    accrued = Decimal(pool(person, "metered")["cost"]["accrued"])
    assert accrued > 0
    person.kubectl("delete", "skp", "metered")
    status_code, audit = sky.audit()
    assert status_code == 0, audit
    bill = Decimal(audit["amount"])
    # begun seconds, and the time until the ends of two machines were seen
    assert bill <= spent(person) <= bill + 2 * 15 * Decimal("0.04") / 3600


def test_a_program_sees_what_it_paid_and_what_it_saved(person: Person, sky: Cloud) -> None:
    done = person.run(person.python, "-c", PROGRAM, "5", "paying")
    shown = done.stdout + done.stderr
    assert "sum 6" in shown
    assert "pool=paying ready: 1 node · $0.01/h (on demand $0.04/h)" in shown
    assert "· $0.00 · nothing left running" in shown
    assert sky.audit()[0] == 0


def test_a_program_whose_budget_buys_nothing_is_told_with_figures(person: Person, sky: Cloud) -> None:
    before = sky.audit()[1]["bought"]
    done = person.run(person.python, "-c", PROGRAM, "0.001", "poor")
    shown = done.stdout + done.stderr
    assert (
        "refused: pool poor cannot become ready: the budget of pool poor is $0.001000: $0.00 spent" in shown
    )
    assert "Raise the budget" in shown
    assert sky.audit()[1]["bought"] == before


def test_a_namespace_has_a_budget_that_no_pool_can_exceed(person: Person, sky: Cloud) -> None:
    before = sky.audit()[1]["bought"]
    person.kubectl("annotate", "namespace", "default", "skyward.dev/budget-max-nodes=0")
    time.sleep(LIMITS_SECONDS)  # a change holds within that time, and nothing shows when
    try:
        done = person.run(person.python, "-c", PROGRAM, "5", "capped")
        assert "refused: pool capped cannot become ready: the budget of namespace default" in done.stdout
        assert sky.audit()[1]["bought"] == before
    finally:
        person.kubectl("annotate", "namespace", "default", "skyward.dev/budget-max-nodes-")
