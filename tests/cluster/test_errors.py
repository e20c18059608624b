"""What a user meets when something in their own program, or in what they ask for, is wrong.

Each test is one error: the class, the words (what happened, to what, what is allowed, what to do next), and
that nothing stays behind.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.cluster.error_programs import CALLS, INTERFERED, MODULE
from tests.cluster.front_door import MINUTES, Person, newcomer, report

from skyward.image import client_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    type Report = dict[str, Any]

pytestmark = pytest.mark.timeout(4 * MINUTES)

CALL = """
import skyward as sky
@sky.function
def one():
    return 1
with sky.Compute({what}) as pool:
    print(one() >> pool)
"""
TASK = """
apiVersion: skyward.dev/v1alpha1
kind: Task
metadata: {name: NAME}
spec:
  poolRef: {name: team}
  WORK
"""
POOL = """
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {name: team}
spec:
  candidates: [{name: here, provider: local}]
"""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody whose control plane takes at most 2 MB of arguments, and as many of a result."""
    with newcomer(SKYWARD_LARGEST_PAYLOAD="2000000", SKYWARD_LARGEST_RESULT="2000000") as somebody:
        up = somebody.run("skyward", "local", "up")
        assert up.returncode == 0, up.stderr
        yield Person(somebody.home, somebody.folder)


@pytest.fixture(scope="module")
def calls(person: Person) -> Report:
    """One pool, and one call after the other that goes wrong."""
    (person.folder / "their_module.py").write_text(MODULE)
    shown = person.script(CALLS)
    return report(person.folder / "report.json") | {"shown": shown}


@pytest.fixture(scope="module")
def interfered(person: Person) -> Report:
    """Three calls under way: one is cancelled, one deleted, and then the pool is deleted, with kubectl."""
    with person.starts(INTERFERED, "shared") as program:
        for _ in range(3):
            program.until("[node 0] asleep")
        tasks = person.kubectl("get", "skt", "-o", "name").split()
        stopped, removed = (next(task for task in tasks if word in task) for word in ("stopped", "removed"))
        person.kubectl("patch", stopped, "--type=merge", "-p", '{"spec":{"cancel":true}}')
        program.until("ended: stopped")
        person.kubectl("delete", "--wait=false", removed)
        program.until("ended: removed")
        person.kubectl("delete", "--wait=false", "skp/shared")
        shown = program.end()
    return report(person.folder / "report.json") | {"shown": shown}


def nothing_is_left(person: Person) -> bool:
    """No pool, no node, and no machine."""
    left = person.kubectl("get", "skp,skn", "--all-namespaces", "-o", "name").strip()
    return not left and not person.processes("providers.local.vm")


def is_gone(pid: int) -> bool:
    """Whether no process of that id does anything."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# -- what cannot be sent ----------------------------------------------------------------------------------


def test_a_function_that_cannot_be_pickled_names_the_variable(calls: Report) -> None:
    error = calls["lock"]
    assert error["type"] == "NotPicklable"
    assert "uses_a_lock, its global 'SETTINGS'['lock'] (a _thread.lock)" in error["text"]
    assert "→ create that object inside the function" in error["text"]
    assert "direct cause" not in error["shown"]  # one traceback, of the user's own line
    assert len(error["frames"]) < 7


def test_an_argument_that_cannot_be_pickled_names_the_part(calls: Report) -> None:
    error = calls["argument"]
    assert error["type"] == "NotPicklable"
    assert "argument 1: ['a'][1] (a _thread.lock) cannot be pickled" in error["text"]
    assert "→ pass plain data" in error["text"]


def test_an_argument_over_the_operator_s_limit_says_how_large_and_what_is_allowed(calls: Report) -> None:
    error = calls["large"]
    assert error["type"] == "ArgumentTooLarge"
    assert re.search(r"3,000,\d+ bytes", error["text"])
    assert "at most 2000000 are taken" in error["text"]
    assert "→ put the data into a volume or object store" in error["text"]
    assert error["seconds"] < 30


def test_an_argument_over_the_limit_that_is_set_here_is_never_sent(calls: Report) -> None:
    error = calls["large here"]
    assert error["type"] == "ArgumentTooLarge"
    assert "one task may take 100,000 bytes" in error["text"]
    assert "SKYWARD_LARGEST_PAYLOAD" in error["text"]


def test_brackets_that_are_missing_are_said_where_they_go(calls: Report) -> None:
    error = calls["brackets"]
    assert error["type"] == "TypeError"
    assert error["text"].endswith("Put brackets around the group: (a() & b()) >> pool")


# -- what goes wrong in the call --------------------------------------------------------------------------


def test_a_result_that_cannot_be_pickled_names_the_part(calls: Report) -> None:
    error = calls["generator"]
    assert error["type"] == "ResultNotPicklable"
    assert "['rows'] (a generator) cannot be pickled" in error["text"]
    assert "→ Return something that pickle can carry" in error["text"]


def test_a_result_over_the_operator_s_limit_says_how_large_and_what_is_allowed(calls: Report) -> None:
    error = calls["returns much"]
    assert error["type"] == "ResultTooLarge"
    assert re.search(r"the result has 3,000,\d+ bytes", error["text"])
    assert "at most 2,000,000" in error["text"]
    assert "→ Write the result to a volume or object store" in error["text"]
    assert "SKYWARD_LARGEST_RESULT" in error["text"]


@pytest.mark.parametrize(
    ("case", "how"), [("exits", "exit code 7"), ("killed", "signal 9 (SIGKILL) (out of memory?)")]
)
def test_a_worker_that_dies_says_how(calls: Report, case: str, how: str) -> None:
    error = calls[case]
    assert error["type"] == "WorkerDied"
    assert how in error["text"]
    assert "→ The process of the call ended" in error["text"]


@pytest.mark.parametrize(
    ("case", "words"), [("leaves", "SystemExit: that is all"), ("leaves without a word", "SystemExit")]
)
def test_sys_exit_in_a_function_does_not_end_the_caller_s_program(
    calls: Report, case: str, words: str
) -> None:
    error = calls[case]
    assert error["type"] == "RemoteError"
    assert error["text"].startswith(words)
    assert "→ return a value, or raise an Exception" in error["text"]


def test_endless_recursion_is_the_caller_s_recursion_error(calls: Report) -> None:
    error = calls["endless"]
    assert error["type"] == "RecursionError"
    assert "more times]" in error["shown"]
    assert len(error["shown"]) < 20_000


def test_an_exception_whose_class_only_the_node_knows_keeps_its_words(calls: Report) -> None:
    error = calls["far"]
    assert error["type"] == "RemoteError"
    assert error["text"].startswith("only_there.Far: made on the node")
    assert "→ the class of this exception is not known here" in error["text"]


def test_an_exception_with_an_init_of_its_own_can_be_caught_as_what_it_is(calls: Report) -> None:
    error = calls["overheats"]
    assert error["type"] == "Overheated"
    assert error["text"] == "Kühlung ❄ has 99 °C"
    assert "raise their_module.Overheated(99" in error["shown"]  # the user's line, in the user's file
    assert "script.py" in error["shown"]
    assert calls["degrees"] == 99


def test_a_message_of_a_megabyte_arrives_and_its_traceback_is_cut(calls: Report) -> None:
    error = calls["much"]
    assert error["type"] == "ValueError"
    assert len(error["text"]) == 1_000_000
    assert len(error["shown"]) < 1_100_000


def test_a_very_long_traceback_is_cut_in_the_middle(calls: Report) -> None:
    error = calls["deep"]
    assert error["type"] == "ValueError"
    assert error["text"] == "deep down"
    assert "characters left out" in error["shown"]
    assert 'raise ValueError("deep down")' in error["shown"]


def test_a_module_that_the_node_does_not_have_is_named(calls: Report) -> None:
    error = calls["missing"]
    assert error["type"] == "ModuleNotFoundError"
    assert error["text"] == "No module named 'not_installed_here'"


def test_whatever_is_printed_arrives(calls: Report) -> None:
    assert calls["speaks"]["value"] == "ß🎈"
    assert "[node 0] Grüße 🎈" in calls["shown"]
    assert "[node 0] \ufffd bytes" in calls["shown"]
    assert "yend" in calls["shown"]
    assert calls["shown"].count("y") >= 300_000


def test_a_module_beside_the_script_travels_with_the_function(calls: Report) -> None:
    assert "type" not in calls["module"]
    assert calls["travels"]["value"] == 12


def test_a_timeout_stops_the_work_and_what_it_started(calls: Report, person: Person) -> None:
    error = calls["timeout"]
    assert error["type"] == "TaskTimeout"
    assert "ran longer than its timeout of 1 s and was stopped" in error["text"]
    assert "with_timeout" in error["text"]
    assert "child.wait()" in error["shown"]  # where it was
    assert "skyward/agent" not in error["shown"]
    assert is_gone(int((person.folder / "timeout").read_text().split()[1]))


def test_a_future_that_is_cancelled_stops_the_work(calls: Report, person: Person) -> None:
    assert calls["cancelled"]["type"] == "CancelledError"
    assert is_gone(int((person.folder / "cancelled").read_text().split()[1]))
    assert calls["afterwards"]["value"] == "well"  # the node has gone on all the time


# -- others interfere -------------------------------------------------------------------------------------


def test_a_task_that_somebody_cancels_says_so(interfered: Report) -> None:
    error = interfered["stopped"]
    assert error["type"] == "TaskCancelled"
    assert re.match(r"task stopped-\w+: cancelled", error["text"])
    assert "→" in error["text"]


def test_a_task_that_somebody_deletes_says_so(interfered: Report) -> None:
    error = interfered["removed"]
    assert error["type"] == "TaskCancelled"
    assert re.match(r"task removed-\w+", error["text"])
    assert "→" in error["text"]


def test_a_pool_that_is_deleted_under_its_caller_says_so(interfered: Report, person: Person) -> None:
    error = interfered["orphan"]
    assert error["type"] == "PoolDeleted"
    assert "pool shared" in error["text"]
    assert "→ Create the pool again" in error["text"]
    assert nothing_is_left(person)


# -- pools that cannot be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("providr=sky.Local()", "TypeError: Compute() has no field 'providr'; did you mean 'provider'?"),
        ("provider=sky.Local", "TypeError: provider must be an object: write sky.Local(), with brackets"),
        ("provider='local'", "TypeError: provider must be like sky.Local(), got 'local' (str)"),
        ("nodes=2", "TypeError: Compute() needs a provider; sky.Local() is this machine"),
        ("provider=sky.Local(), nodes='two'", "TypeError: nodes must be a number, (from, to)"),
        ("provider=sky.Local(), nodes=-1", "ValueError: nodes must be at least 0, got -1"),
        ("provider=sky.Local(), nodes=(4, 2)", "ValueError: nodes.max must be at least nodes.desired (4)"),
        ("provider=sky.Local(), allocation='spott'", "did you mean 'spot'?"),
        ("provider=sky.Local(), image=sky.Image(pip='numpy')", "write it like ['numpy', 'pandas']"),
        (
            "provider=sky.Local(), image=sky.Image(pips=[])",
            "Image() has no field 'pips'; did you mean 'pip'?",
        ),
        ("provider=sky.Local(), image=sky.Image(python='3')", "Image.python='3' is not valid; write it like"),
        ("provider=sky.Local(), name='My Pool'", "name='My Pool' is not valid: lower-case letters"),
        ("provider=sky.Local(), ttl='1h'", "ttl must be a whole number, got '1h' (str)"),
    ],
)
def test_a_wrong_field_is_refused_where_it_stands(what: str, complaint: str) -> None:
    import skyward as sky

    with pytest.raises((TypeError, ValueError)) as caught:
        eval(f"sky.Compute({what})", {"sky": sky})  # as a user writes it
    assert complaint in f"{type(caught.value).__name__}: {caught.value}"


def test_a_value_that_the_api_server_refuses_is_named(person: Person) -> None:
    shown = person.fails(CALL.format(what="provider=sky.Local(), region='r' * 300"))
    assert "PoolError: pool" in shown
    assert "spec.candidates[0].regions[0]: Too long: may not be more than" in shown
    assert "→ correct the field that is named" in shown
    assert "During handling" not in shown
    assert nothing_is_left(person)


def test_another_python_minor_is_refused_before_a_machine_is_made(person: Person) -> None:
    other = "3.12" if client_python() != "3.12" else "3.13"
    shown = person.fails(CALL.format(what=f"provider=sky.Local(), image=sky.Image(python={other!r})"))
    assert f"EnvironmentMismatch: this program runs Python {client_python()}" in shown
    assert f"→ give the pool sky.Image(python={client_python()!r}), or run this program with" in shown
    assert "node=0" not in shown


def test_a_package_that_does_not_exist_is_shown_and_the_node_released(person: Person) -> None:
    shown = person.fails(
        CALL.format(what="provider=sky.Local(), image=sky.Image(pip=['no-such-package-of-skyward'])")
    )
    assert "BootstrapFailed: pool" in shown
    assert "no-such-package-of-skyward was not found in the package registry" in shown
    assert re.search(r"^  \| error: No solution found", shown, re.MULTILINE)  # the log
    assert "→ Correct the package in spec.image.pip" in shown
    assert "nothing left running" in shown
    assert nothing_is_left(person)


def test_a_provider_without_an_adapter_says_what_is_missing(person: Person) -> None:
    shown = person.fails(CALL.format(what="provider=sky.GCP()"))
    assert "PoolStalled: pool" in shown
    assert "the operator has no adapter for provider 'gcp'; it has: aws, local, sim" in shown
    assert "→ Choose a provider that is named, or install the adapter" in shown
    assert nothing_is_left(person)


def test_a_pool_that_does_not_exist_is_named_with_those_that_do(person: Person) -> None:
    shown = person.fails(CALL.format(what="name='nowhere'"))
    assert "PoolNotFound: there is no pool nowhere in namespace default; there are: none" in shown
    assert "→ create it: sky.Compute(name='nowhere', provider=sky.Local())" in shown


# -- YAML -------------------------------------------------------------------------------------------------


def test_tasks_made_by_hand_end_with_a_reason_and_a_remedy(person: Person) -> None:
    other = "3.12" if client_python() != "3.12" else "3.13"
    tasks = {
        "nope": 'function: {entrypoint: "math:nope"}',
        "nomodule": 'function: {entrypoint: "nomodule:f"}',
        "older": f'calls: {{python: "{other}", count: 1, package: "AAAA"}}',
        "garbage": f'calls: {{python: "{client_python()}", count: 1, package: "AAAA"}}',
    }
    documents = [POOL, *(TASK.replace("NAME", name).replace("WORK", work) for name, work in tasks.items())]
    file = person.folder / "tasks.yaml"
    file.write_text("---".join(documents))
    person.kubectl("apply", "-f", file)
    try:
        person.kubectl("wait", "--for=condition=Failed", *(f"task/{name}" for name in tasks), "--timeout=60s")
        items = json.loads(person.kubectl("get", "skt", "-o", "json"))["items"]
    finally:
        person.kubectl("delete", "-f", file)
    ended = {item["metadata"]["name"]: item["status"] for item in items}
    assert ended["nope"]["reason"] == "EntrypointNotFound"
    assert "module 'math' has no 'nope'. Check module and name" in ended["nope"]["message"]
    assert ended["nomodule"]["reason"] == "EntrypointNotFound"
    assert "no module 'nomodule' on the node" in ended["nomodule"]["message"]
    assert ended["older"]["reason"] == "EnvironmentMismatch"
    assert f"pickled by Python {other}" in ended["older"]["message"]
    assert "spec.image.python" in ended["older"]["message"]
    assert ended["garbage"]["reason"] == "PayloadInvalid"
    assert "send the call again" in ended["garbage"]["message"]
    assert nothing_is_left(person)
