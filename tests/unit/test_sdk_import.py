"""`import skyward` is cheap, and brings nothing that a VM does not have."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import skyward as sky

HEAVY = {
    "kubernetes",
    "pydantic",
    "httpx",
    "cloudpickle",
    "lz4",
    "rich",
    "typer",
    "yaml",
    "platformdirs",
    "asyncio",
}


def _in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_import_loads_the_standard_library_only() -> None:
    code = "import json, sys; import skyward; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(_in_a_new_process(code))}
    assert not loaded & HEAVY
    foreign = loaded - set(sys.stdlib_module_names) - {"skyward"}
    assert {name for name in foreign if not name.startswith(("_", "__"))} <= {"sitecustomize"}


def test_import_takes_at_most_150_ms_of_processor_time() -> None:
    code = "import time; a = time.process_time(); import skyward; print(time.process_time() - a)"
    assert min(float(_in_a_new_process(code)) for _ in range(3)) < 0.150


def test_names_that_are_also_modules_stay_functions() -> None:
    code = (
        "import skyward as sky, skyward.shard, skyward.gather, skyward.functions;"
        "assert callable(sky.shard) and callable(sky.gather); print(sky.time.minutes(2))"
    )
    assert _in_a_new_process(code).strip() == "120.0"


@pytest.mark.parametrize("name", [name for name in sky.__all__ if name != "accelerators"])
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(sky, name) is not None


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(AttributeError, match="did you mean 'Compute'"):
        sky.Computer  # noqa: B018
