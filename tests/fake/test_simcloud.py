"""The simulated cloud from outside: it sells real machines, keeps its books, and is unpleasant on demand."""

from __future__ import annotations

import asyncio
import os
import signal
from decimal import Decimal
from typing import Any

import asyncssh
import httpx
import pytest
from tests.fake.sim_cloud import KEY, Sim, serving, sim_cloud

from simcloud.__main__ import main
from simcloud.ledger import LedgerInUse
from simcloud.vms import NoVms
from skyward_operator.nodes.ssh import Target, connect, first_contact
from skyward_operator.providers.conformance import until
from skyward_operator.providers.contract import Address
from skyward_operator.providers.local.folder import Folder


def fault(at: str, effect: str, **more: Any) -> dict[str, Any]:
    """A scenario with one fault."""
    return {"faults": [{"at": at, "effect": effect, **more}]}


def address(instance: dict[str, Any]) -> Address:
    """Where a machine says that it is."""
    return Address(**instance["address"])


# Machines


async def test_an_order_is_answered_at_once_and_becomes_a_machine_with_ssh() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with sim_cloud(ssh=True) as sim:
        ssh_key = await sim.ssh_key(key.export_public_key("openssh").decode().strip())
        ordered = await sim.order(ssh_key=ssh_key)
        assert (ordered.status_code, ordered.json()["state"]) == (202, "pending")
        machine = await sim.reaches(ordered.json()["id"], "running")
        connection = await connect(Target(address(machine), machine["host_key"], key))
        async with connection:
            shown = await connection.run("echo $SIM_METADATA_URL")
        assert str(shown.stdout).startswith(f"{sim.service.endpoint}/metadata/")
        await sim.ask("DELETE", f"/v1/instances/{machine['id']}")
        gone = await sim.reaches(machine["id"], "gone")
        assert gone["message"] == "terminated by its account"
        with pytest.raises(OSError, match=r".*"):
            await first_contact(address(machine))


async def test_a_machine_that_powers_off_from_inside_is_gone_and_no_longer_paid_for() -> None:
    async with sim_cloud(ssh=True) as sim:
        machine = await sim.running()
        inside = Folder(sim.folder / "vms", machine["id"]).running()
        assert inside is not None
        os.kill(inside.pid, signal.SIGKILL)
        gone = await sim.reaches(machine["id"], "gone")
        assert gone["message"] == "powered off from inside"
        assert not sim.audit().alive


async def test_machines_and_books_are_there_after_a_restart() -> None:
    async with sim_cloud(ssh=True, scenario={"remember_seconds": 5}) as sim:
        machine = await sim.running(tags={"a": "b"})
        await sim.service.stop()
        async with serving(sim.folder, sim.service.cloud.vms, None) as again:
            assert await again.instance(machine["id"]) == machine
            assert await first_contact(address(machine)) == machine["host_key"]
            assert (await again.order(token="token", tags={"a": "b"})).json()["id"] == machine["id"]
            assert again.audit().bought == 1
            assert again.service.cloud.scenario.remember_seconds == 5
            await again.ask("DELETE", f"/v1/instances/{machine['id']}")
            await again.reaches(machine["id"], "gone")


async def test_what_is_left_of_a_stopped_cloud_can_be_cleared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with sim_cloud(ssh=True) as sim:
        machine = await sim.running(name="forgotten")
        words = ["clear", "--data", str(sim.folder)]
        with pytest.raises(SystemExit) as refused:
            await asyncio.to_thread(main, words)
        assert refused.value.code == 2
        await sim.service.stop()
        with pytest.raises(SystemExit) as done:
            await asyncio.to_thread(main, words)
        assert done.value.code == 0
        assert "forgotten ended" in capsys.readouterr().out
        with pytest.raises(ConnectionRefusedError):
            await first_contact(address(machine))
        async with serving(sim.folder, sim.service.cloud.vms, None) as again:
            assert (await again.instance(machine["id"]))["state"] == "gone"


async def test_two_clouds_do_not_keep_one_ledger() -> None:
    async with sim_cloud() as sim:
        with pytest.raises(LedgerInUse, match="stop it"):
            async with serving(sim.folder, NoVms(), None):
                pass


# Orders


async def test_a_client_token_buys_once_and_for_one_order_only() -> None:
    async with sim_cloud() as sim:
        first, second = await sim.order(token="t"), await sim.order(token="t")
        assert first.json()["id"] == second.json()["id"]
        other = await sim.order(token="t", instance_type="c.large")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "IdempotencyMismatch")
        assert sim.audit().bought == 1


async def test_a_bare_account_buys_again_and_is_shown_no_host_key() -> None:
    async with sim_cloud() as sim:
        first = await sim.order(token="t", key="bare-account-key")
        second = await sim.order(token="t", key="bare-account-key")
        assert first.json()["id"] != second.json()["id"]
        assert first.json()["host_key"] is None
        assert sim.audit().bought_twice == ["t"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ({"region": "sim-south"}, 400, "InvalidParameter", "sim-east, sim-north, sim-west"),
        ({"instance_type": "c.tiny"}, 400, "InvalidParameter", "c.small"),
        ({"instance_type": "p5en.48xlarge", "region": "sim-north", "market": "spot"}, 400, "InvalidParameter",
         "not sold in market"),
        ({"max_hourly": "0.01"}, 409, "PriceTooHigh", "0.0400/h, more than the 0.01/h"),
        ({"ssh_key": "ssh-key-none"}, 404, "NotFound", "ssh-key-none"),
        ({"colour": "planted-secret"}, 400, "InvalidParameter", "colour"),
    ],
)  # fmt: skip
async def test_a_wrong_order_is_refused_with_what_is_wrong(
    fields: dict[str, Any], status: int, code: str, says: str
) -> None:
    async with sim_cloud() as sim:
        answer = await sim.order(**fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert says in answer.json()["error"]["message"]
        assert "planted-secret" not in answer.text
        assert sim.audit().bought == 0


async def test_quotas_count_machines_and_accelerators() -> None:
    async with sim_cloud() as sim:
        eight = {"instance_type": "p5.48xlarge"}
        refused = await sim.order(token="a", key="small-account-key", **eight)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "QuotaExceeded")
        assert "'H100' of this account is 2" in refused.json()["error"]["message"]
        assert (await sim.order(token="b", key="small-account-key")).status_code == 202
        refused = await sim.order(token="c", key="small-account-key")
        assert "'instances' of this account is 1" in refused.json()["error"]["message"]


async def test_keys_and_permissions_are_told_apart() -> None:
    async with sim_cloud() as sim:
        nobody = await sim.ask("GET", "/v1/offers", key="wrong")
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "Unauthorized")
        reader = await sim.ask("GET", "/v1/interruptions", key="reader-account-key")
        assert (reader.status_code, reader.json()["error"]["code"]) == (403, "Forbidden")
        assert "'notices'" in reader.json()["error"]["message"]
        assert (await sim.ask("GET", "/v1/offers", key="reader-account-key")).status_code == 200


async def test_capacity_is_limited_and_comes_back() -> None:
    capacity = {"region": "sim-east", "instance_type": "c.small", "market": "on-demand", "machines": 1}
    async with sim_cloud(scenario={"capacity": [capacity]}) as sim:
        first = await sim.order(token="a")
        refused = await sim.order(token="b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "InsufficientCapacity")
        await sim.ask("DELETE", f"/v1/instances/{first.json()['id']}")
        await sim.reaches(first.json()["id"], "gone")
        assert (await sim.order(token="b")).status_code == 202


async def test_side_resources_stay_while_machines_use_them() -> None:
    async with sim_cloud() as sim:
        machine = await sim.running()
        (key,) = (await sim.ask("GET", "/v1/side")).json()["side"]
        refused = await sim.ask("DELETE", f"/v1/side/{key['id']}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "InUse")
        await sim.ask("DELETE", f"/v1/instances/{machine['id']}")
        await sim.reaches(machine["id"], "gone")
        assert sim.audit().side
        assert (await sim.ask("DELETE", f"/v1/side/{key['id']}")).status_code == 204
        assert not sim.audit().side


# What goes wrong with requests


@pytest.mark.parametrize(
    ("effect", "bought"), [("lose-answer", 1), ("lose-with-error", 1), ("cut", 0), ("internal-error", 0)]
)
async def test_an_answer_is_missing_whether_or_not_the_machine_was_bought(effect: str, bought: int) -> None:
    async with sim_cloud(scenario=fault("create", effect, times=1)) as sim:
        if "error" in effect:
            assert (await sim.order(token="t")).status_code == 500
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await sim.order(token="t")
        assert sim.audit().bought == bought
        assert (await sim.order(token="t")).status_code == 202
        assert sim.audit().bought == 1
        assert [event["effects"] for event in sim.events("request") if event["operation"] == "create"] == [
            [effect],
            [],
        ]


async def test_a_cloud_that_breaks_its_word_buys_twice_for_one_token() -> None:
    async with sim_cloud(scenario=fault("create", "duplicate", times=1)) as sim:
        await sim.order(token="t", tags={"owner": "n"})
        assert sim.audit().bought_twice == ["t"]
        assert sim.audit().at_once == ["n"]


async def test_too_many_requests_say_when_to_come_back() -> None:
    async with sim_cloud(scenario=fault("list", "rate-limit", seconds=7, times=1)) as sim:
        answer = await sim.ask("GET", "/v1/instances")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
        assert (await sim.ask("GET", "/v1/instances")).status_code == 200


async def test_capacity_is_refused_by_script_then_granted() -> None:
    refusals = fault("create", "no-capacity", where={"market": "spot"}, times=2)
    async with sim_cloud(scenario=refusals) as sim:
        assert (await sim.order(token="d")).status_code == 202
        answers = [await sim.order(token=f"s{number}", market="spot") for number in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 202]


async def test_pages_show_each_machine_once_whatever_is_bought_between() -> None:
    async with sim_cloud(scenario={"page_size": 2}) as sim:
        bought = [(await sim.order(token=f"{number}")).json()["id"] for number in range(5)]
        seen, page = [], ""
        while True:
            document = (await sim.ask("GET", "/v1/instances", params={"page": page})).json()
            seen += [each["id"] for each in document["instances"]]
            if not (page := document["next_page"]):
                break
            if len(seen) == 2:
                bought.append((await sim.order(token="late")).json()["id"])
        assert seen == bought


async def test_a_listing_lags_in_both_directions() -> None:
    async with sim_cloud(scenario=fault("list", "lag", seconds=60)) as sim:
        machine = await sim.running(tags={"a": "b"})

        async def listed() -> list[str]:
            document = (await sim.ask("GET", "/v1/instances", params={"tag.a": "b"})).json()
            assert document["complete"]
            return [each["state"] for each in document["instances"]]

        assert await listed() == []
        await sim.staff("POST", "/clock", json={"seconds": 61})
        assert await listed() == ["running"]
        await sim.ask("DELETE", f"/v1/instances/{machine['id']}")
        await sim.reaches(machine["id"], "gone")
        assert await listed() == ["running"]
        await sim.staff("POST", "/clock", json={"seconds": 61})
        assert await listed() == []


@pytest.mark.parametrize(("effect", "complete"), [("partial", False), ("partial-in-silence", True)])
async def test_a_partial_listing_says_so_or_does_not(effect: str, complete: bool) -> None:
    async with sim_cloud(scenario=fault("list", effect, fraction=0.5)) as sim:
        for number in range(4):
            await sim.order(token=f"{number}")
        document = (await sim.ask("GET", "/v1/instances")).json()
        assert (len(document["instances"]), document["complete"]) == (2, complete)


# What goes wrong with machines


async def test_a_boot_may_never_end_and_is_paid_for() -> None:
    async with sim_cloud(scenario=fault("vm", "boot-never-ends")) as sim:
        ordered = (await sim.order()).json()
        await sim.staff("POST", "/clock", json={"seconds": 3600})
        assert (await sim.instance(ordered["id"]))["state"] == "pending"
        assert Decimal("0.04") <= sim.audit().amount < Decimal("0.05")


async def test_ssh_is_refused_for_a_while() -> None:
    async with sim_cloud(ssh=True, scenario=fault("vm", "ssh-refused", seconds=3600)) as sim:
        machine = await sim.running()
        with pytest.raises(ConnectionRefusedError):
            await first_contact(address(machine))
        await sim.staff("POST", "/clock", json={"seconds": 3601})

        async def answers() -> str | None:
            try:
                return await first_contact(address(machine))
            except ConnectionRefusedError:
                return None

        assert await until(answers) == machine["host_key"]


async def test_a_wrong_host_key_is_shown() -> None:
    async with sim_cloud(ssh=True, scenario=fault("vm", "wrong-host-key")) as sim:
        machine = await sim.running()
        assert await first_contact(address(machine)) != machine["host_key"]


async def test_preemption_is_announced_in_the_api_and_inside_the_machine() -> None:
    preempt = fault("vm", "preempt", seconds=600, notice_seconds=120)
    async with sim_cloud(scenario=preempt) as sim:
        machine = await sim.running(market="spot", tags={"a": "b"})
        metadata = sim.service.cloud.state.instances[machine["id"]].metadata_key
        inside = f"{sim.service.endpoint}/metadata/{metadata}/interruption"
        assert (await sim.client.get(inside)).status_code == 404
        await sim.staff("POST", "/clock", json={"seconds": 485})

        async def announced() -> list[dict[str, Any]]:
            document = (await sim.ask("GET", "/v1/interruptions", params={"tag.a": "b"})).json()
            return list(document["interruptions"])

        (notice,) = await until(announced)
        assert notice["instance"] == machine["id"]
        assert (await sim.client.get(inside)).json() == notice
        assert (await sim.instance(machine["id"]))["state"] == "running"
        await sim.staff("POST", "/clock", json={"seconds": 120})
        gone = await sim.reaches(machine["id"], "gone")
        assert "taken back" in gone["message"]


async def test_staff_take_a_machine_with_and_without_notice() -> None:
    async with sim_cloud() as sim:
        one, two, three = [await sim.running(token=f"{number}") for number in range(3)]
        await sim.staff("POST", f"/instances/{one['id']}/interrupt", json={"notice_seconds": 0})
        await sim.reaches(one["id"], "gone")
        await sim.staff("POST", f"/instances/{two['id']}/vanish")
        await sim.reaches(two["id"], 404)
        await sim.staff("POST", f"/instances/{three['id']}/hang")
        await until(lambda: hung(sim, three["id"]))
        assert (await sim.instance(three["id"]))["state"] == "running"
        assert sim.audit().alive == [three["id"]]


async def hung(sim: Sim, instance_id: str) -> bool:
    """Whether a machine is dead and shown as alive."""
    return sim.service.cloud.state.instances[instance_id].hung


async def test_a_machine_that_ignores_its_end_is_paid_for_until_then() -> None:
    async with sim_cloud(scenario=fault("vm", "terminate-ignored", seconds=1800)) as sim:
        machine = await sim.running()
        assert (await sim.ask("DELETE", f"/v1/instances/{machine['id']}")).json()["state"] == "stopping"
        await sim.staff("POST", "/clock", json={"seconds": 1700})
        assert (await sim.instance(machine["id"]))["state"] == "stopping"
        await sim.staff("POST", "/clock", json={"seconds": 101})
        await sim.reaches(machine["id"], "gone")
        assert 1800 <= sim.audit().seconds < 1830
        await sim.staff("POST", "/clock", json={"seconds": 3601})
        assert (await sim.instance(machine["id"]))["state"] == 404


# Money and time


async def test_the_bill_follows_the_spot_price_by_the_second() -> None:
    change = {"after_seconds": 3600, "instance_type": "c.small", "market": "spot", "hourly": "0.1"}
    async with sim_cloud(scenario={"prices": [change]}) as sim:
        spot = await sim.running(token="s", market="spot")
        await sim.running(token="d")
        await sim.staff("POST", "/clock", json={"seconds": 3600})

        async def repriced() -> bool:
            return Decimal((await sim.instance(spot["id"]))["hourly"]) == Decimal("0.1")

        await until(repriced)
        await sim.staff("POST", "/clock", json={"seconds": 3600})
        bill = (await sim.ask("GET", "/v1/bill")).json()
        amounts = [Decimal(line["amount"]) for line in bill["instances"]]
        assert amounts[0] == pytest.approx(Decimal("0.112"), abs=Decimal("0.001"))
        assert amounts[1] == pytest.approx(Decimal("0.08"), abs=Decimal("0.001"))
        assert Decimal(bill["total"]) == sum(amounts)
        quote = await sim.ask("GET", "/v1/quote", params={**await small("spot")})
        assert quote.json()["hourly"] == "0.1"


async def small(market: str) -> dict[str, str]:
    """The words of a quote."""
    return {"region": "sim-east", "instance_type": "c.small", "market": market}


async def test_a_skewed_clock_is_seen_in_what_the_api_tells() -> None:
    async with sim_cloud(scenario={"clock_skew_seconds": -86_400}) as sim, sim_cloud() as honest:
        skewed, right = await sim.running(), await honest.running()
        assert skewed["created"] < right["created"][:10]


async def test_the_ledger_can_be_read_by_staff_and_holds_no_api_key() -> None:
    async with sim_cloud() as sim:
        await sim.running()
        text = (await sim.staff("GET", "/ledger")).text
        kinds = [line.split('"kind":"')[1].split('"')[0] for line in text.splitlines()]
        assert {"created", "running", "request", "side-created"} <= set(kinds)
        assert "default-key" not in text
        assert KEY in text
        assert (await sim.ask("GET", "/admin/ledger")).status_code == 401
