"""What a person sees of offers, refusals and prices, from the command line to the ledger of the cloud."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.front_door import MINUTES, Person
from tests.cluster.sim_process import Cloud, cloud, customer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(10 * MINUTES)

NOWHERE = {"at": "create", "effect": "no-capacity", "where": {"region": "sim-west"}}
NO_SPOT = {"at": "create", "effect": "no-capacity", "where": {"market": "spot", "region": "sim-east"}}

POOL = """
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: {name}}}
spec:
  candidates:
    - {candidate}
  nodes: {{desired: 1}}
"""

CHOOSES = """
import skyward as sky


def north(offers):
    free = [offer for offer in offers if offer.refusal is None and offer.market == "spot"]
    assert [offer.hourly_price for offer in free] == sorted(offer.hourly_price for offer in free)
    return [offer for offer in offers if offer.region == "sim-north" and offer.market == "on-demand"]


@sky.function
def add(a, b):
    return a + b


options = sky.Options(console="log", selection=north)
with sky.Compute(provider=sky.Sim(), vcpus=2, max_hourly_cost=0.05, options=options) as pool:
    print("sum", add(1, 2) >> pool)
"""

REFUSED = """
import sys
import skyward as sky

try:
    with sky.Compute(**eval(sys.argv[1]), options=sky.Options(console="silent")):
        pass
except sky.PoolStalled as error:
    print(error.reason, "|", error, "|", error.remedy)
"""


@pytest.fixture(scope="module")
def sky() -> Iterator[Cloud]:
    """A cloud that has nothing in its west, and no spot in its east."""
    with cloud({"faults": [NOWHERE, NO_SPOT]}) as made:
        yield made


@pytest.fixture(scope="module")
def person(sky: Cloud) -> Iterator[Person]:
    """Somebody whose operator has an account at that cloud."""
    with customer(sky) as somebody:
        yield somebody


def apply(person: Person, name: str, candidate: str) -> None:
    """A pool in YAML."""
    file = person.folder / f"{name}.yaml"
    file.write_text(POOL.format(name=name, candidate=candidate))
    person.kubectl("apply", "-f", file)


def asked(person: Person, *words: str) -> Any:
    """The JSON of a command that must succeed."""
    done = person.run("skyward", *words, "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_pool_without_capacity_waits_and_why_says_what_was_refused(person: Person, sky: Cloud) -> None:
    before = sky.audit()[1]["bought"]
    small = "{name: west, provider: sim, instanceTypes: [c.small], regions: [sim-west]}"
    apply(person, "waits", small)
    reason = "--for=jsonpath={.status.reason}=InsufficientCapacity"
    person.kubectl("wait", reason, "skp/waits", "--timeout=60s")
    person.kubectl("wait", "--for=jsonpath={.status.nextTryTime}", "skp/waits", "--timeout=60s")
    told = asked(person, "why", "waits")
    assert (told["phase"], told["waitsFor"]) == ("Provisioning", "the provider to have such a machine")
    assert {each["market"]: each["outcome"] for each in told["offersTried"]} == {
        "spot": "InsufficientCapacity",
        "on-demand": "InsufficientCapacity",
    }
    assert all("retryTime" in each and each["time"] for each in told["offersTried"])
    shown = person.run("skyward", "why", "waits").stdout
    assert "asks again: in" in shown
    assert "sim: no on-demand capacity for c.small in sim-west" in shown
    node = person.kubectl("get", "skn", "-o", "jsonpath={.items[0].metadata.name}")
    assert asked(person, "why", node)["reason"] == "InsufficientCapacity"
    # It needs no operator, and the next one goes on with what was kept.
    person.kill("skyward_operator run")
    assert asked(person, "why", "waits")["offersTried"] == told["offersTried"]
    up = person.run("skyward", "local", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    person.kubectl("wait", reason, "skp/waits", "--timeout=60s")
    assert len(asked(person, "why", "waits")["offersTried"]) == 2
    person.kubectl("delete", "skp", "waits")
    assert sky.audit()[1]["bought"] == before


def test_spot_that_cannot_be_had_is_bought_on_demand_and_told_on_pool_and_node(person: Person) -> None:
    apply(person, "falls", "{name: east, provider: sim, instanceTypes: [c.small], regions: [sim-east]}")
    person.kubectl("wait", "--for=condition=Ready", "skp/falls", "--timeout=120s")
    told = "{range .items[?(@.reason=='FellBackToOnDemand')]}{.involvedObject.kind} {.message}{'\\n'}{end}"
    lines = person.kubectl("get", "events", "-o", f"jsonpath={told}").splitlines()
    assert {line.split()[0] for line in lines} == {"ComputePool", "ComputeNode"}
    assert all("$0.0400/h was bought" in line and "$0.0120/h was refused" in line for line in lines)
    outcomes = [each["outcome"] for each in asked(person, "why", "falls")["offersTried"]]
    assert sorted(outcomes) == ["InsufficientCapacity", "Launched"]
    person.kubectl("delete", "skp", "falls")


def test_a_function_chooses_and_the_cloud_sells_what_it_chose(person: Person, sky: Cloud) -> None:
    out = person.script(CHOOSES)
    assert "sum 3" in out
    order = sky.events("created")[-1]["instance"]
    assert (order["region"], order["market"]) == ("sim-north", "on-demand")
    assert "offers-" not in person.kubectl("get", "skp")


def test_offers_and_plans_ask_and_buy_nothing(person: Person, sky: Cloud) -> None:
    before = sky.audit()[1]["bought"]
    told = asked(person, "offers", "--provider", "sim", "--accelerator", "H100")
    assert [(each["region"], each["instance_type"], each["market"]) for each in told["offers"]] == [
        ("sim-east", "p5.4xlarge", "spot"),
        ("sim-north", "p5.4xlarge", "spot"),
        ("sim-east", "p5.4xlarge", "on-demand"),
        ("sim-north", "p5.4xlarge", "on-demand"),
    ]
    near = person.run("skyward", "offers", "--provider", "sim", "--accelerator", "H10")
    assert (near.returncode, "did you mean H100" in near.stdout) == (3, True)
    file = person.folder / "plan.yaml"
    candidate = "{name: a, provider: sim, vcpus: 2, market: on-demand}"
    file.write_text(POOL.format(name="planned", candidate=candidate))
    plan = person.run("skyward", "plan", "-f", file)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "1 node of the first offer cost $0.0400/h, $0.9600 a day" in plan.stdout
    file.write_text(POOL.format(name="planned", candidate="{name: a, provider: sim, market: never}"))
    wrong = person.run("skyward", "plan", "-f", file)
    assert (wrong.returncode, "market" in wrong.stderr) == (1, True)
    assert "No resources found" in person.kubectl("get", "skp") or not person.kubectl("get", "skp").strip()
    assert sky.audit()[1]["bought"] == before


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ("dict(provider=sky.Sim(region='sim-eest'))", "RequestRejected", "did you mean sim-east"),
        ("dict(provider=sky.Sim(), accelerator='H10')", "RequestRejected", "did you mean H100"),
        (
            "dict(provider=sky.Sim(region='sim-north'), vcpus=2, max_hourly_cost=0.001)",
            "PriceCapExceeded",
            "the cheapest offer is c.small spot in sim-north at $0.0120/h",
        ),
        ("dict(provider=sky.GCP())", "ProviderUnknown", "no adapter for provider 'gcp'"),
    ],
)
def test_what_can_never_be_had_is_an_error_at_once_and_buys_nothing(
    person: Person, sky: Cloud, fields: str, reason: str, words: str
) -> None:
    before = sky.audit()[1]["bought"]
    out = person.script(REFUSED, fields)
    assert out.startswith(f"{reason} |"), out
    assert words in out
    told = "{range .items[?(@.type=='Warning')]}{.message}{'\\n'}{end}"
    assert words in person.kubectl("get", "events", "-o", f"jsonpath={told}")
    assert sky.audit()[1]["bought"] == before
