"""What a person writes is checked at once, and becomes objects that the contract accepts."""

from __future__ import annotations

import base64
import json
import random
import re
import threading
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import skyward as sky
from skyward.contract.pool import ComputePool
from skyward.contract.task import Task
from skyward.image import DEBIAN_PACKAGE, VARIABLE, client_python
from skyward.lifecycle import checked_name, new_name
from skyward.manifest import INLINE_LIMIT, Call, Owner, object_name, pool_object, task_object
from skyward.packing import Packed
from skyward.wire.codec import loads

OWNER = Owner("0a1b2c", "f" * 64)
LOCAL = sky.Local()


def _pool(*specs: sky.Spec, **options: Any) -> dict[str, Any]:
    body = pool_object("demo", "default", specs, sky.Options(**options), OWNER)
    ComputePool.model_validate(body)
    return body


def _task(package: bytes, count: int = 1, **how: Any) -> dict[str, Any]:
    body = task_object("train-1", "default", "demo", "3.13", count, Packed(package), Call(**how), OWNER)
    Task.model_validate(body)
    return body


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"nodez": 2}, TypeError, "no field 'nodez'; did you mean 'nodes'?"),
        ({"accellerator": "A100"}, TypeError, "did you mean 'accelerator'?"),
        ({"selection": "first"}, TypeError, "no field 'selection'"),
        ({"nodes": "2"}, TypeError, "nodes must be a number, (from, to) or sky.Nodes(...), got '2'"),
        ({"nodes": 2.5}, TypeError, "got 2.5"),
        ({"nodes": True}, TypeError, "got True"),
        ({"nodes": -1}, ValueError, "nodes must be at least 0, got -1"),
        ({"nodes": (3, 2)}, ValueError, "nodes.max must be at least nodes.desired (3), got 2"),
        ({"provider": "local"}, TypeError, "provider must be like sky.Local(), got 'local' (str)"),
        ({"provider": sky.Local}, TypeError, "write sky.Local(), with brackets"),
        ({"image": "python:3.13"}, TypeError, "image must be like sky.Image("),
        ({"vcpus": "four"}, TypeError, "vcpus must be a number, got 'four' (str)"),
        ({"memory_gb": -2}, ValueError, "memory_gb must be more than 0"),
        ({"max_hourly_cost": float("inf")}, ValueError, "max_hourly_cost must be a finite number"),
        ({"disk_gb": 1.5}, TypeError, "disk_gb must be a whole number, got 1.5 (float)"),
        ({"architecture": "amd64"}, ValueError, "'x86_64', 'arm64'"),
        ({"allocation": "spott"}, ValueError, "allocation='spott' is not one of"),
        ({"ttl": -1}, ValueError, "ttl must be at least 0, got -1"),
        ({"region": ""}, ValueError, "region='' is not valid"),
        ({"accelerator": 5}, TypeError, "accelerator must be like sky.accelerators.A100()"),
        ({"volumes": 5}, TypeError, "volumes must be like [sky.Volume(bucket='data', mount='/data')], got 5"),
        ({"volumes": None}, TypeError, "volumes must be like"),
        ({"volumes": sky.Volume("a", "/a")}, TypeError, "volumes must be like"),
        ({"allocation": ["spot"]}, TypeError, "allocation must be one of 'spot-if-available'"),
        ({"gpus": 2}, TypeError, "no field 'gpus'; write accelerator=sky.Accelerator("),
        ({"market": "spot"}, TypeError, "no field 'market'; write allocation='spot'"),
        ({"timeout": 5}, TypeError, "write options=sky.Options(default_compute_timeout=60)"),
        ({"colour": "red"}, TypeError, "no field 'colour'. It takes:"),
        ({"vcpus": 0}, ValueError, "vcpus must be more than 0, got 0"),
        ({"vcpus": 5000}, ValueError, "vcpus must be at most 4096, got 5000"),
        ({"memory_gb": 10**6}, ValueError, "memory_gb must be at most 65536"),
        ({"disk_gb": 10**6}, ValueError, "disk_gb must be at most 65536"),
        ({"ttl": 10**10}, ValueError, "ttl must be at most 2592000"),
        ({"volumes": ["data"]}, TypeError, "volumes must be like"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(
    fields: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        sky.Compute(**{"provider": LOCAL, **fields})


def test_the_limits_of_a_worker_are_those_of_the_resources() -> None:
    with pytest.raises(ValueError, match=r"worker\.concurrency must be at most 256"):
        sky.Worker(concurrency=10**9)
    _pool(sky.Spec(provider=LOCAL, vcpus=4096, memory_gb=65_536, disk_gb=65_536, ttl=30 * 86_400))
    _pool(sky.Spec(provider=LOCAL), worker=sky.Worker(concurrency=256, buffer=256))


def test_a_pool_that_exists_takes_its_name_alone() -> None:
    with pytest.raises(TypeError, match=r"uses a pool that exists and takes nothing else, got nodes"):
        sky.Compute(name="demo", nodes=2)


def test_the_three_forms_of_compute_do_not_mix() -> None:
    spec = sky.Spec(provider=LOCAL)
    with pytest.raises(TypeError, match="Specs or keywords, not both"):
        sky.Compute(spec, nodes=2)
    with pytest.raises(TypeError, match="needs a provider"):
        sky.Compute()
    with pytest.raises(TypeError, match="needs a provider"):
        sky.Compute(nodes=2)
    with pytest.raises(TypeError, match=r"sky\.Spec\(provider="):
        sky.Compute("a100")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="options must be like"):
        sky.Compute(provider=LOCAL, options={"console": "log"})  # type: ignore[arg-type]
    assert sky.Compute(name="train").is_attached
    assert not sky.Compute(spec, name="train").is_attached


@pytest.mark.parametrize("name", ["Train", "a_b", "-a", "a-", "1a", "x" * 41, "", "a.b"])
def test_a_name_that_the_server_would_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        checked_name(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sky.Image(pip="numpy"),
        lambda: sky.Image(pip=[1]),  # type: ignore[list-item]
        lambda: sky.Image(python="3.13.1"),
        lambda: sky.Image(pyhton="3.13"),  # type: ignore[call-arg]
        lambda: sky.Image(env={"A": 1}),  # type: ignore[dict-item]
        lambda: sky.Options(console="loud"),  # type: ignore[arg-type]
        lambda: sky.Options(default_compute_timeout=0),
        lambda: sky.Options(result_ttl=0),
        lambda: sky.Options(result_ttl=366 * 86_400),
        lambda: sky.Options(result_ttl=90.5),  # type: ignore[arg-type]
        lambda: sky.Worker(concurrency=0),
        lambda: sky.Worker(executor="fork"),  # type: ignore[arg-type]
        lambda: sky.Nodes(2, min=3),
        lambda: sky.AWS(regoin="eu"),  # type: ignore[call-arg]
        lambda: sky.accelerators.A100(count=0),
        lambda: sky.Accelerator("A100", memory="lots"),
        lambda: sky.PipIndex("ftp://x"),
    ],
)
def test_every_model_checks_itself(make: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_pool_says_only_what_was_asked_for() -> None:
    body = _pool(sky.Spec(provider=LOCAL, nodes=2, image=sky.Image(pip=["numpy"])))
    assert body["metadata"]["labels"]["skyward.dev/run"] == "0a1b2c"
    assert body["spec"] == {
        "candidates": [{"name": "c0", "provider": "local", "market": "spot-if-available"}],
        "selection": "cheapest",
        "nodes": {"desired": 2},
        "image": {"python": client_python(), "pip": ["numpy"]},
        "lifetime": {"ttlSeconds": 600},
        "lease": {"durationSeconds": 600},
        "ticketHash": "f" * 64,
    }


def test_every_field_arrives_in_its_place() -> None:
    spec = sky.Spec(
        provider=sky.AWS(credentials="aws", region="eu-west-1", ssh_user="v"),
        accelerator=sky.accelerators.A100(count=8, memory="80GB", form_factor="SXM"),
        nodes=(2, 8),
        vcpus=7.5,
        memory_gb=31.2,
        disk_gb=100,
        architecture="x86_64",
        allocation="on-demand",
        image=sky.Image(
            python="3.12",
            apt=["git"],
            env={"A": "1"},
            shell_vars={"B": "date"},
            pip_indexes=[sky.PipIndex("https://example.org", ["torch"])],
        ),
        max_hourly_cost=2.50,
        ttl=0,
        volumes=[sky.Volume("data", "/data", prefix="x", read_only=False)],
    )
    body = _pool(
        spec,
        selection="first",
        worker=sky.Worker(concurrency=4, executor="thread"),
        provision_timeout=600,
        autoscale_idle_timeout=30,
    )["spec"]
    (candidate,) = body["candidates"]
    assert candidate["accelerator"] == {"name": "A100", "count": "8", "memoryGiB": 80, "formFactor": "SXM"}
    assert (candidate["vcpus"], candidate["memoryGiB"], candidate["diskGiB"]) == (8, 32, 100)
    assert (candidate["regions"], candidate["maxHourlyPrice"]) == (["eu-west-1"], "2.5")
    assert (candidate["credentialsRef"], candidate["parameters"]) == ({"name": "aws"}, {"sshUser": "v"})
    assert body["nodes"] == {"desired": 2, "max": 8}
    assert body["lifetime"] == {"ttlSeconds": 0, "idleSeconds": 30}
    assert body["worker"] == {"concurrency": 4, "buffer": 0, "executor": "thread", "reuse": True}
    assert body["timeouts"] == {"provisionSeconds": 600}
    assert body["image"]["env"] == [{"name": "A", "value": "1"}]
    assert body["image"]["shellVars"] == [{"name": "B", "command": "date"}]
    assert body["volumes"] == [{"bucket": "data", "mountPath": "/data", "prefix": "x", "readOnly": False}]


def test_strings_and_old_spellings_are_taken() -> None:
    spec = sky.Spec(provider=LOCAL, accelerator="H100", allocation="always-spot")  # type: ignore[arg-type]
    (candidate,) = _pool(spec)["spec"]["candidates"]
    assert candidate["accelerator"] == {"name": "H100", "count": "1"}
    assert candidate["market"] == "spot"
    assert sky.accelerators.RTX_4090(count=2) == sky.Accelerator("RTX-4090", count=2)


def test_several_specs_are_candidates_of_one_pool() -> None:
    body = _pool(sky.Spec(provider=sky.VastAI(), nodes=2), sky.Spec(provider=sky.AWS(), nodes=2))
    assert [each["provider"] for each in body["spec"]["candidates"]] == ["vastai", "aws"]
    with pytest.raises(ValueError, match="nodes must be the same in every Spec"):
        _pool(sky.Spec(provider=sky.VastAI(), nodes=2), sky.Spec(provider=sky.AWS(), nodes=3))


def test_a_small_task_carries_its_calls() -> None:
    body = _task(b"x" * INLINE_LIMIT, count=3)
    assert base64.b64decode(body["spec"]["calls"]["package"]) == b"x" * INLINE_LIMIT
    assert body["spec"]["calls"]["count"] == 3
    assert body["spec"]["ttlSecondsAfterFinished"] == 600
    assert "target" not in body["spec"]
    assert "timeouts" not in body["spec"]


def test_a_large_task_names_its_calls() -> None:
    package = b"x" * (INLINE_LIMIT + 1)
    calls = _task(package)["spec"]["calls"]
    assert calls["blob"] == {"digest": sha256(package).hexdigest(), "sizeBytes": len(package)}
    assert "package" not in calls


def test_options_of_a_call_reach_the_task() -> None:
    spec = _task(b"x", mode="Rank", rank=2, timeout=0.2, queue_timeout=90, retry=sky.Retry(0, 2))["spec"]
    assert spec["target"] == {"mode": "Rank", "rank": 2}
    assert spec["timeouts"] == {"runSeconds": 1, "queueSeconds": 90}
    assert (spec["retry"]["onInterruption"], spec["retry"]["onException"]) == (0, 2)


@given(stem=st.text(max_size=80), digits=st.integers(2, 8))
def test_names_are_always_valid(stem: str, digits: int) -> None:
    name = object_name(stem, digits)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", name)


def test_a_pool_is_named_after_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/me/Train_Digits.py"])
    assert re.fullmatch(r"train-digits-[0-9a-f]{4}", new_name())
    monkeypatch.setattr("sys.argv", ["/venv/ipykernel_launcher.py"])
    assert new_name().startswith("notebook-")


def test_an_unknown_field_of_a_provider_is_told_by_the_name_that_was_written() -> None:
    with pytest.raises(TypeError, match=r"^Local\(\) has no field 'foo'"):
        sky.Local(foo=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("env", {"A B": "1"}, "A B"),
        ("shell_vars", {"1ST": "hostname"}, "1ST"),
        ("apt", ["git", "a; rm"], "a; rm"),
    ],
)
def test_a_name_that_the_resource_definition_refuses_is_refused_where_it_stands(
    field: str, value: Any, word: str
) -> None:
    with pytest.raises(ValueError, match=rf"Image\.{field}.*{word}"):
        sky.Image(**{field: value})


def test_the_patterns_of_names_are_those_of_the_resource_definition() -> None:
    schema = json.dumps(ComputePool.model_json_schema())
    for pattern in (VARIABLE, DEBIAN_PACKAGE):
        assert json.dumps(f"^{pattern}$") in schema


@pytest.mark.parametrize("decorated", [False, True])
def test_a_health_checker_stands_in_the_pool(decorated: bool) -> None:
    fn = sky.function(is_well) if decorated else is_well
    asked = sky.HealthChecker(fn, 10, timeout=5, consecutive_failures=2, initial_delay=60)
    (checker,) = _pool(sky.Spec(provider=LOCAL), health_checker=asked)["spec"]["health"].values()
    assert loads(base64.b64decode(checker.pop("function")))() is True
    assert checker == {
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 2,
        "initialDelaySeconds": 60,
    }


def test_a_health_checker_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="fn must be a function without arguments, got True"):
        sky.HealthChecker(True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        sky.HealthChecker(is_well, interval=0)
    with pytest.raises(TypeError, match=r"health_checker must be like sky\.HealthChecker\(fn\)"):
        sky.Options(health_checker=is_well)  # type: ignore[arg-type]
    large = random.randbytes(100_000)
    with pytest.raises(ValueError, match=r"the function of health_checker takes \d+ bytes"):
        _pool(sky.Spec(provider=LOCAL), health_checker=sky.HealthChecker(lambda: bool(large)))
    with pytest.raises(sky.errors.NotPicklable):
        _pool(sky.Spec(provider=LOCAL), health_checker=sky.HealthChecker(lambda: lock.locked()))


lock = threading.Lock()


def is_well() -> bool:
    return True


def test_beginning_of_a_name_is_enough_for_a_hint() -> None:
    with pytest.raises(TypeError, match=r"no field 'reuse'; did you mean 'reuse_processes'?"):
        sky.Worker(reuse=False)  # type: ignore[call-arg]
