"""The life of a pool: made, waited for, used, deleted, and proved absent, whatever happens in between."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.sdk_plane import NODES, POOLS, TASKS, FakePlane, wait_until

import skyward as sky
from skyward import heartbeat
from skyward.contract.names import ANNOTATION_RENEWED, POOL_FINALIZER
from skyward.contract.pool import ComputePool

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = sky.Options(console="log")
SILENT = sky.Options(console="silent")
LOCAL = sky.Local()


@sky.function
def add(a: int, b: int) -> int:
    return a + b


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("skyward")}


def test_a_pool_lives_as_long_as_its_with(plane: FakePlane, capsys: pytest.CaptureFixture[str]) -> None:
    with sky.Compute(provider=LOCAL, nodes=2, options=PLAIN) as pool:
        assert pool.is_active
        assert pool.current_nodes() == 2
        assert pool.concurrency == 1
        assert add(1, 2) >> pool == 3
        ComputePool.model_validate(plane.only(POOLS))
        pool.map(str, range(4))
    assert plane.names(POOLS) == []
    assert plane.names(NODES) == []
    assert not pool.is_active
    lines = capsys.readouterr().err.splitlines()
    assert any(f"pool={pool.name} ready: 2 nodes" in line for line in lines)
    assert "✔ 5 calls · 2 nodes · " in lines[-1]
    assert lines[-1].endswith(" · $0.00 · nothing left running")
    with pytest.raises(sky.PoolNotReady, match="is not in use"):
        add(1, 2) >> pool


def test_the_phases_of_every_node_are_told(plane: FakePlane, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    plane.waits_for_watchers = True

    def record(self: Any, subject: Any, text: str, *, after: float = 0.0) -> None:
        told.append(f"{subject}: {text}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skyward.console.plain.PlainConsole.update", record)
        with sky.Compute(provider=LOCAL, options=PLAIN):
            pass
    assert "node 0: Launching" in told
    assert "node 0: Bootstrapping: pip" in told


def test_an_exception_in_the_block_still_releases_everything(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LookupError, match="mine"), sky.Compute(provider=LOCAL, options=PLAIN):
        raise LookupError("mine")
    assert plane.names(POOLS) == []
    last = capsys.readouterr().err.splitlines()[-1]
    assert "✘ 0 calls · 1 node · " in last
    assert last.endswith("nothing left running")


def test_leaving_with_calls_that_nobody_waited_for_says_what_happens_to_them(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with sky.Compute(provider=LOCAL, options=PLAIN) as pool:
        single, pair = add(1, 1) > pool, (add(1, 2) & add(3, 4)) > pool
    assert "the block has ended: cancelling 3 calls that nobody has waited for\n" in capsys.readouterr().err
    for future in (single, pair):
        with pytest.raises(sky.SkywardError):
            future.result(10)
    pool = sky.Compute(provider=LOCAL, options=PLAIN)
    pool.__enter__()
    kept = add(1, 1) > pool
    pool.__exit__(LookupError, LookupError("mine"), None)
    assert "LookupError ended the block: cancelling 1 call under way\n" in capsys.readouterr().err
    del kept


def test_a_pool_that_is_there_is_used_and_stays(plane: FakePlane, capsys: pytest.CaptureFixture[str]) -> None:
    with sky.Compute(provider=LOCAL, name="team", options=SILENT), sky.Compute(name="team") as pool:
        assert pool.is_attached
        assert add(1, 1) >> pool == 2
        creates = plane.count("POST", "/computepools")
        pool.__exit__(None, None, None)
        assert plane.names(POOLS) == ["team"]
        pool.__enter__()
    assert creates == plane.count("POST", "/computepools") == 1


def test_a_name_that_is_not_there_lists_those_that_are(plane: FakePlane) -> None:
    with (
        sky.Compute(provider=LOCAL, name="team", options=SILENT),
        pytest.raises(sky.PoolNotFound, match=r"no pool taem .* there are: team"),
        sky.Compute(name="taem", options=SILENT),
    ):
        pass
    assert plane.count("POST", "/computepools") == 1


def test_a_name_that_is_taken_says_how_to_go_on(plane: FakePlane) -> None:
    with (
        sky.Compute(provider=LOCAL, name="team", options=SILENT),
        pytest.raises(sky.PoolError, match="exists already") as caught,
        sky.Compute(provider=LOCAL, name="team", options=SILENT),
    ):
        pass
    assert "skyward down team" in str(caught.value)


def test_a_refused_pool_shows_the_servers_words(plane: FakePlane) -> None:
    before = _threads()
    plane.fault(method="POST", path="/computepools", status=422, reason="Invalid")
    with pytest.raises(sky.PoolError, match="was refused: the fake: Invalid"):
        sky.Compute(provider=LOCAL, options=SILENT).__enter__()
    wait_until(lambda: _threads() <= before)


def test_a_package_that_does_not_exist_raises_with_its_line_and_releases_the_node(plane: FakePlane) -> None:
    plane.pool_status = {
        "phase": "Stalled",
        "reason": "PackageNotFound",
        "conditions": [{"type": "Stalled", "status": "True", "reason": "PackageNotFound"}],
        "failures": {"count": 1, "message": "step pip failed on node 0", "log": "no such package: nunpy"},
    }
    with pytest.raises(sky.BootstrapFailed, match=r"\| no such package: nunpy") as caught:
        sky.Compute(provider=LOCAL, image=sky.Image(pip=["nunpy"]), options=SILENT).__enter__()
    assert "Correct the package" in str(caught.value)
    assert plane.names(POOLS) == []


def test_a_provider_without_an_adapter_is_the_operators_clear_word(plane: FakePlane) -> None:
    message = "the operator has no adapter for provider 'vastai'"
    condition = {"type": "Stalled", "status": "True", "reason": "ProviderUnknown", "message": message}
    plane.pool_status = {"phase": "Stalled", "conditions": [condition]}
    with pytest.raises(sky.PoolStalled, match="no adapter for provider 'vastai'") as caught:
        sky.Compute(provider=sky.VastAI(), options=SILENT).__enter__()
    assert type(caught.value) is sky.PoolStalled


def test_a_pool_deleted_under_a_waiting_caller_ends_the_wait(plane: FakePlane) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with (  # noqa: PT012 - where it raises is beside the point
        pytest.raises(sky.PoolDeleted, match="was deleted"),
        sky.Compute(provider=LOCAL, options=SILENT) as pool,
    ):
        future = add(1, 2) > pool
        plane.drop(NODES, plane.names(NODES)[0])
        plane.drop(POOLS, pool.name)
        future.result(20)


def test_nothing_left_is_only_said_when_it_is_proved(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    options = sky.Options(console="log", shutdown_timeout=0.5)
    with sky.Compute(provider=LOCAL, options=options) as pool:
        plane.keep_pools = True
    last = capsys.readouterr().err.splitlines()[-1]
    assert "nothing left running" not in last
    assert "not confirmed gone after" in last
    assert f"skyward down {pool.name}" in last


def _lazily(plane: FakePlane) -> None:
    """The operator makes nodes when there are calls, and has none yet."""
    ready = {"type": "Ready", "status": "True", "reason": "AwaitingTasks"}
    plane.pool_status = {"phase": "Ready", "reason": "AwaitingTasks", "usable": True, "conditions": [ready]}
    plane.answer = lambda *_: {"phase": "Queued"}


def test_a_pool_without_nodes_begins_with_the_first_call_and_tells_how_it_scales(
    plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    _lazily(plane)
    with sky.Compute(provider=LOCAL, nodes=(0, 3), options=PLAIN) as pool:
        assert pool.is_active
        assert pool.current_nodes() == 0
        message = "from 0 to 2 nodes: 2 calls could use 2"
        plane.change(POOLS, pool.name, scaling={"fromNodes": 0, "toNodes": 2, "message": message})
        shown = f"pool={pool.name} scales {message}"
        said: list[str] = []

        def is_told() -> bool:
            said.append(capsys.readouterr().err)
            return shown in "".join(said)

        wait_until(is_told)
        plane.change(POOLS, pool.name, reason="ScalingUp")
        plane.change(POOLS, pool.name, scaling={"fromNodes": 2, "toNodes": 0, "message": "from 2 to 0 nodes"})
    said.append(capsys.readouterr().err)
    assert "".join(said).count(shown) == 1
    assert "ready: nodes start with the first call" in "".join(said)


STALLED = {
    "phase": "Stalled",
    "conditions": [{"type": "Stalled", "status": "True", "reason": "PackageNotFound"}],
    "failures": {"count": 1, "message": "step pip failed on node 0", "log": "no such package: nunpy"},
    "usable": False,
}


def test_callers_of_a_pool_that_cannot_start_a_node_hear_why(plane: FakePlane) -> None:
    _lazily(plane)
    with sky.Compute(provider=LOCAL, nodes=(0, 3), options=SILENT) as pool:
        future = add(1, 2) > pool
        plane.change(POOLS, pool.name, **STALLED)
        with pytest.raises(sky.BootstrapFailed, match="nunpy"):
            future.result(20)
        wait_until(lambda: plane.only(TASKS)["spec"].get("cancel"))
        with pytest.raises(sky.BootstrapFailed, match="nunpy"):
            add(1, 2) >> pool
        assert len(plane.names(TASKS)) == 1


def test_a_pool_that_stalls_with_a_node_goes_on_with_it(plane: FakePlane) -> None:
    """Growth that fails is no end of what runs."""
    with sky.Compute(provider=LOCAL, nodes=(1, 3), options=SILENT) as pool:
        plane.change(POOLS, pool.name, nodes={"ready": 1}, **STALLED)
        assert add(1, 2) >> pool == 3


def test_resize_asks_the_operator(plane: FakePlane) -> None:
    with sky.Compute(provider=LOCAL, nodes=(1, 4), options=SILENT) as pool:
        pool.resize((2, 6))
        assert plane.only(POOLS)["spec"]["nodes"] == {"desired": 2, "max": 6}
        pool.resize(3)
        assert plane.only(POOLS)["spec"]["nodes"] == {"desired": 3}
        with pytest.raises(ValueError, match="at least 0"):
            pool.resize(-1)


def test_two_pools_of_a_program_share_one_watch_of_tasks(plane: FakePlane) -> None:
    one = sky.Compute(provider=LOCAL, options=SILENT)
    other = sky.Compute(provider=LOCAL, options=SILENT)
    with one, other:
        assert add(1, 2) >> one == 3
        assert add(3, 4) >> other == 7
        assert add(5, 6) >> sky == 11
        watches = [path for method, path in plane.requests if "watch=1" in path and "/tasks" in path]
        assert len(watches) == 1
    assert plane.names(POOLS) == []
    wait_until(lambda: all(thread.name == "skyward-console" for thread in _threads()))


def test_async_programs_use_async_with(plane: FakePlane) -> None:
    async def program() -> int:
        async with sky.Compute(provider=LOCAL, options=SILENT) as pool:
            first, second = await asyncio.gather(add(1, 2) > pool, add(3, 4) > sky)
            return first + second

    assert asyncio.run(program()) == 10
    assert plane.names(POOLS) == []


def test_a_cancelled_async_program_releases_everything(plane: FakePlane) -> None:
    plane.answer = lambda *_: {"phase": "Running"}

    async def program() -> None:
        async with sky.Compute(provider=LOCAL, options=SILENT) as pool:
            future = add(1, 2) > pool
            async with asyncio.timeout(0.2):
                await future

    with pytest.raises(TimeoutError):
        asyncio.run(program())
    assert plane.names(POOLS) == []
    assert plane.only(TASKS)["spec"]["cancel"] is True


def test_a_program_cancelled_while_its_pool_begins_releases_it(plane: FakePlane) -> None:
    plane.pool_status = {"phase": "Provisioning"}

    async def program() -> None:
        async with asyncio.timeout(0.5), sky.Compute(provider=LOCAL, options=SILENT):
            raise AssertionError("it is never ready")

    with pytest.raises(TimeoutError):
        asyncio.run(program())
    assert plane.names(POOLS) == []


def test_a_notebook_with_a_running_loop_uses_a_plain_with(plane: FakePlane) -> None:
    async def cell() -> int:
        with sky.Compute(provider=LOCAL, options=SILENT) as pool:
            return add(20, 22) >> pool

    assert asyncio.run(cell()) == 42


SCRIPT = """
import sys, time
import skyward as sky

@sky.function
def forever(n):
    time.sleep(n)

pool = sky.Compute(provider=sky.Local(), name="script")
"""


def _script(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", SCRIPT + textwrap.dedent(body)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _wait_for(claim: Callable[[], object], process: subprocess.Popen[str]) -> None:
    def claim_or_dead() -> object:
        assert process.poll() is None, process.communicate()[0]
        return claim()

    wait_until(claim_or_dead)


def _is_being_deleted(plane: FakePlane, name: str) -> bool:
    return "deletionTimestamp" in plane.objects[POOLS][name]["metadata"]


WAITING = """
with pool:
    forever(100) >> pool
"""


def _in_a_loop(*lines: str) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"\nimport asyncio\nasync def main():\n{body}\nasyncio.run(main())\n"


@pytest.mark.parametrize(
    "program",
    [
        WAITING,
        _in_a_loop("with pool:", "    forever(100) >> pool"),
        _in_a_loop("with pool:", "    (forever(100) > pool).result()"),
        _in_a_loop("with pool:", "    list(pool.map(forever, [100, 100], stream=True))"),
        _in_a_loop(
            "with pool:", "    forever(100) > pool", "    time.sleep(0.5)", "    forever(100) >> pool"
        ).replace("import asyncio", "import asyncio, time"),
        _in_a_loop("async with pool:", "    forever(100) >> pool"),
        _in_a_loop("async with pool:", "    await (forever(100) > pool)"),
    ],
)
def test_ctrl_c_cancels_deletes_waits_and_says_so(plane: FakePlane, program: str) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with _script(program) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert plane.names(POOLS) == []
    assert all(task["spec"]["cancel"] for task in plane.objects[TASKS].values())
    assert re.search(r"interrupted: (cancelling 1 running task, )?deleting pool script", output)
    assert "nothing left running" in output
    assert process.returncode != 0


def test_a_second_ctrl_c_leaves_and_says_how_to_finish(plane: FakePlane) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    plane.keep_pools = True
    with _script(WAITING) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        process.send_signal(signal.SIGINT)
        _wait_for(lambda: plane.only(POOLS)["metadata"].get("deletionTimestamp"), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert "its deletion goes on in the background. Finish later: skyward down script" in output
    assert output.count("Traceback") == 1
    assert output.rstrip().endswith("KeyboardInterrupt")
    assert len(output[output.index("Traceback") :].splitlines()) <= 8
    assert "nothing left running" not in output
    assert POOL_FINALIZER in plane.only(POOLS)["metadata"]["finalizers"]


STREAMING = """
with pool:
    for _ in pool.map(forever, [100], stream=True):
        pass
"""


@pytest.mark.parametrize("program", [WAITING, STREAMING])
def test_ctrl_c_while_nothing_answers_is_announced_and_a_second_one_leaves(
    plane: FakePlane, program: str
) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with _script(program) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        plane.fault(status=503, times=10**6)
        limit = threading.Timer(60, process.kill)  # without the announcement the next line blocks
        limit.start()
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        announced = any("interrupted: cancelling 1 running task" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        limit.cancel()
    assert announced
    assert "left before pool script was confirmed gone. Finish later: skyward down script" in output


def test_a_second_ctrl_c_leaves_the_pools_around_it_too(plane: FakePlane) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    plane.keep_pools = True
    around = "with sky.Compute(provider=sky.Local(), name='outer'), pool:\n    forever(100) >> pool\n"
    with _script(around) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        process.send_signal(signal.SIGINT)
        _wait_for(lambda: _is_being_deleted(plane, "script"), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert output.count("interrupted: ") == 1
    assert "Finish later: skyward down script" in output
    assert "left before pool outer was confirmed gone. Finish later: skyward down outer" in output
    assert not _is_being_deleted(plane, "outer")


def test_ctrl_c_while_nothing_answers_gives_up_after_a_while_and_says_how_to_finish(
    plane: FakePlane,
) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with _script("sky.lifecycle.HURRY_SECONDS = 0.3\n" + WAITING) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        plane.fault(status=503, times=10**6)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "interrupted: cancelling 1 running task, deleting pool script" in output
    assert "pool script could not be deleted" in output
    assert "Finish later: skyward down script" in output


def test_ctrl_c_while_the_creation_is_not_answered_says_how_to_finish(plane: FakePlane) -> None:
    creation = plane.fault(method="POST", status=503, times=10**6)
    with _script("sky.lifecycle.HURRY_SECONDS = 0.3\nwith pool:\n    pass\n") as process:
        _wait_for(lambda: creation.seen, process)
        plane.fault(status=503, times=10**6)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "interrupted: deleting pool script; once more to leave at once" in output
    assert "Finish later: skyward down script" in output


@pytest.mark.parametrize(
    "program",
    [
        WAITING,
        """
        import asyncio

        async def main():
            async with pool:
                await (forever(100) > pool)

        asyncio.run(main())
        """,
    ],
)
def test_sigterm_ends_the_pool_as_ctrl_c_does(plane: FakePlane, program: str) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    with _script(program) as process:
        _wait_for(lambda: plane.names(TASKS), process)
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert plane.names(POOLS) == []
    assert plane.only(TASKS)["spec"]["cancel"] is True
    assert "nothing left running" in output
    assert process.returncode == 143
    if program == WAITING:
        # The signal may come before the answer that says that the task exists.
        assert re.search(r"terminated: (cancelling 1 running task, )?deleting pool script", output)
        assert "Traceback" not in output


def test_sigterm_is_what_it_was_after_the_last_pool_and_not_touched_if_somebody_else_has_it(
    plane: FakePlane,
) -> None:
    with sky.Compute(provider=LOCAL, options=SILENT):
        assert callable(signal.getsignal(signal.SIGTERM))
        with sky.Compute(provider=LOCAL, options=SILENT):
            pass
        assert callable(signal.getsignal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sky.Compute(provider=LOCAL, options=SILENT):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_pool_that_is_ready_is_used_without_a_word_of_waiting(plane: FakePlane) -> None:
    attaching = "with sky.Compute(name='team'):\n    pass\n"
    with sky.Compute(provider=LOCAL, name="team", options=SILENT), _script(attaching) as process:
        output, _ = process.communicate(timeout=30)
    assert "pool=team ready: 1 node" in output
    assert "waiting for the operator" not in output


def test_ctrl_c_while_the_pool_begins_deletes_it(plane: FakePlane) -> None:
    plane.pool_status = {"phase": "Provisioning"}
    with _script("with pool:\n    pass\n") as process:
        _wait_for(lambda: plane.names(POOLS), process)
        _wait_for(lambda: plane.count("GET", "computenodes?") >= 2, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert plane.names(POOLS) == []
    assert re.search(r"released · \d nodes? · .* · nothing left running", output)
    assert "✔" not in output


def test_a_program_that_ends_before_its_future_ends_without_a_traceback(plane: FakePlane) -> None:
    plane.answer = lambda _, task: {
        "phase": "Cancelled" if task["spec"].get("cancel") else "Running",
    }
    with _script("pool.__enter__()\nfuture = forever(100) > pool\n") as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert plane.only(TASKS)["spec"]["cancel"] is True
    assert "Traceback" not in output
    assert "RuntimeError" not in output


def test_a_program_that_forgets_the_end_is_tidied_up_at_exit(plane: FakePlane) -> None:
    with _script("pool.__enter__()\nprint('in')\n") as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert plane.names(POOLS) == []
    assert "nothing left running" in output


def test_a_program_gives_signs_of_life_on_its_pool_until_it_deletes_it(
    plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEATS", 3000)
    options = sky.Options(console="silent", lease_timeout=30)

    def shown() -> str:
        return str(plane.only(POOLS)["metadata"]["annotations"][ANNOTATION_RENEWED])

    with sky.Compute(provider=LOCAL, options=options):
        assert plane.only(POOLS)["spec"]["lease"] == {"durationSeconds": 30}
        signs = set[str]()
        wait_until(lambda: signs.add(shown()) or len(signs) >= 3)  # type: ignore[func-returns-value]
        plane.fault(method="PATCH", path="computepools", status=403, times=3)
        before = shown()
        wait_until(lambda: shown() != before)
    assert plane.names(POOLS) == []
    wait_until(lambda: not [each for each in _threads() if each.name == "skyward-heartbeat"])


def test_a_pool_that_shall_outlive_its_program_has_no_lease(plane: FakePlane) -> None:
    with sky.Compute(provider=LOCAL, options=sky.Options(console="silent", lease_timeout=None)):
        assert "lease" not in plane.only(POOLS)["spec"]
        assert not [each for each in _threads() if each.name == "skyward-heartbeat"]
    with pytest.raises(ValueError, match="lease_timeout"):
        sky.Options(lease_timeout=5)
