"""The pure parts of the simulated cloud: what is due, what is drawn, what a ledger keeps."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from simcloud.__main__ import main
from simcloud.catalog import catalog
from simcloud.conductor import Step, due
from simcloud.faults import Fate, Faults
from simcloud.ledger import Ledger, read
from simcloud.scenario import Scenario
from simcloud.state import Instance, Interval, State

if TYPE_CHECKING:
    from pathlib import Path


def instance(**fields: Any) -> Instance:
    """An instance that was ordered at 1000."""
    names = ("id", "account", "token", "name", "region", "ssh_key", "host", "metadata_key")
    known: dict[str, Any] = {
        **dict.fromkeys(names, "x"),
        "instance_type": "c.small",
        "market": "spot",
        "tags": {},
        "security_group": None,
        "user_data": None,
        "hourly": "0.01",
        "max_hourly": None,
        "created": 1000.0,
        "port": 22,
    }
    return Instance.model_validate({**known, **fields})


@pytest.mark.parametrize(
    ("fields", "age", "powered", "step"),
    [
        ({}, 0, False, Step.POWER_ON),
        ({}, 1, True, Step.COME_UP),
        ({"running": 1001}, 2, True, Step.WAIT),
        ({"fate": {"boot_seconds": 5}}, 4, False, Step.WAIT),
        ({"fate": {"boot_seconds": 5}}, 5, False, Step.POWER_ON),
        ({"fate": {"boot_seconds": None}}, 1e6, False, Step.WAIT),
        ({"fate": {"ssh_seconds": 9}}, 1, False, Step.COME_UP),
        ({"fate": {"ssh_seconds": 9}, "running": 1001}, 8, False, Step.WAIT),
        ({"fate": {"ssh_seconds": 9}, "running": 1001}, 9, False, Step.POWER_ON),
        ({"running": 1001, "fate": {"preempt_seconds": 60, "notice_seconds": 20}}, 39, True, Step.WAIT),
        ({"running": 1001, "fate": {"preempt_seconds": 60, "notice_seconds": 20}}, 40, True, Step.NOTICE),
        ({"running": 1001, "noticed": 1040, "interrupted_at": 1060}, 59, True, Step.WAIT),
        ({"running": 1001, "noticed": 1040, "interrupted_at": 1060}, 60, True, Step.INTERRUPT),
        ({"running": 1001, "fate": {"preempt_seconds": 60}}, 60, True, Step.INTERRUPT),
        ({"running": 1001, "fate": {"vanish_seconds": 60}}, 60, True, Step.VANISH),
        ({"running": 1001, "fate": {"hang_seconds": 60}}, 60, True, Step.HANG),
        ({"running": 1001, "hung": True, "fate": {"hang_seconds": 60}}, 61, True, Step.WAIT),
        ({"stopping": 1005, "fate": {"terminate_seconds": 30}}, 34, True, Step.WAIT),
        ({"stopping": 1005, "fate": {"terminate_seconds": 30}}, 35, True, Step.END),
    ],
)
def test_what_is_due_follows_from_fate_and_age(
    fields: dict[str, Any], age: float, powered: bool, step: Step
) -> None:
    assert due(instance(**fields), 1000.0 + age, powered=powered) is step


def test_the_same_seed_draws_the_same_whatever_happens_between() -> None:
    faults = [
        {"at": "create", "effect": "cut", "probability": 0.5},
        {"at": "list", "effect": "cut", "probability": 0.5},
    ]
    scenario = Scenario.model_validate({"seed": 3, "faults": faults})
    plain, mixed = Faults(scenario), Faults(scenario)
    first = [bool(plain.of_request("create", {})) for _ in range(64)]
    second = []
    for _ in range(64):
        second.append(bool(mixed.of_request("create", {})))
        mixed.of_request("list", {})
    assert first == second
    assert 16 < sum(first) < 48
    other = Faults(scenario.model_copy(update={"seed": 4}))
    assert [bool(other.of_request("create", {})) for _ in range(64)] != first


def test_a_fault_skips_then_happens_so_often_and_only_where_it_should() -> None:
    one = {"at": "create", "effect": "cut", "skip": 1, "times": 2, "where": {"market": "spot"}}
    faults = Faults(Scenario.model_validate({"faults": [one]}))
    assert faults.of_request("create", {"market": "on-demand"}) == []
    assert [bool(faults.of_request("create", {"market": "spot"})) for _ in range(4)] == [
        False,
        True,
        True,
        False,
    ]


def test_fates_add_up() -> None:
    faults = [
        {"at": "vm", "effect": "slow-boot", "seconds": 9},
        {"at": "vm", "effect": "preempt", "seconds": 60, "notice_seconds": 5},
    ]
    scenario = Scenario.model_validate({"boot_seconds": 1, "terminate_seconds": 2, "faults": faults})
    wanted = Fate(boot_seconds=9, preempt_seconds=60, notice_seconds=5, terminate_seconds=2)
    assert Faults(scenario).of_machine({}) == wanted


@pytest.mark.parametrize(
    ("at", "effect", "says"),
    [
        ("list", "duplicate", "happens at 'create' only"),
        ("create", "lag", "happens at 'list' only"),
        ("create", "preempt", "happens at 'vm' only"),
        ("vm", "cut", "happens to a request"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(at: str, effect: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Scenario.model_validate({"faults": [{"at": at, "effect": effect}]})


def test_a_ledger_loses_a_line_without_its_end_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for number in range(3):
        ledger.append("clock", 1.0, seconds=number)
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"clock","sec')
    assert len(list(read(path))) == 3
    ledger = Ledger(path)
    ledger.append("clock", 2.0, seconds=9)
    ledger.close()
    assert [event["seconds"] for event in read(path)] == [0, 1, 2, 9]


@pytest.mark.parametrize("size", [0, 64 * 1024 - 20, 64 * 1024, 200_000])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, size: int) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"kind":"a","time":1}\n' + b"x" * size)
    Ledger(path).close()
    assert path.read_bytes() == b'{"kind":"a","time":1}\n'


def test_money_is_counted_by_the_second() -> None:
    interval = Interval(hourly=Decimal("3.6"), began=1000.0)
    assert interval.amount(1001.5) == Decimal("0.001500")
    assert interval.model_copy(update={"ended": 1001.0}).amount(9e9) == Decimal("0.001000")


def test_only_the_spot_market_moves_machines_that_run_to_a_new_price() -> None:
    state = State()
    for market in ("spot", "on-demand"):
        one = instance(id=market, token=market, market=market, hourly="1")
        state.apply({"kind": "created", "time": 1000.0, "instance": one.model_dump(mode="json")})
        state.apply(
            {"kind": "priced", "time": 4600.0, "instance_type": "c.small", "market": market, "hourly": "2"}
        )
    assert state.instances["spot"].amount(8200.0) == Decimal(3)
    assert state.instances["on-demand"].amount(8200.0) == Decimal(2)
    assert state.price("c.small", "spot") == Decimal(2)


def test_the_catalogue_sells_each_type_somewhere_and_spot_for_less() -> None:
    for kind in catalog().values():
        assert kind.regions
        assert kind.spot is None or kind.spot < kind.on_demand
        assert (kind.accelerator is None) == (kind.accelerator_count == 0)


def test_the_command_says_which_line_of_a_script_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "rough.json"
    script.write_text('{"faults": [{"at": "create", "effect": "explode"}]}')
    with pytest.raises(SystemExit) as ended:
        main(["up", "--data", str(tmp_path), "--scenario", str(script)])
    assert ended.value.code == 2
    assert "faults.0.effect" in capsys.readouterr().err


def test_an_audit_of_a_ledger_on_disk_fails_while_a_machine_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("created", 1000.0, instance=instance(id="sim-1").model_dump(mode="json"))
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--data", str(tmp_path)])
    assert ended.value.code == 1
    assert '"sim-1"' in capsys.readouterr().out
    ledger.append("gone", 1010.0, id="sim-1", cause="x")
    ledger.close()
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--data", str(tmp_path)])
    assert ended.value.code == 0
