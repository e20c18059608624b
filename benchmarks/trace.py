"""Where the time of one call goes: `python -m benchmarks.trace`, step by step through every process.

A call of its own first, which is a Task, then one of a standing Executor. The steps follow each other without
a gap. The fastest tenth stands beside the median: what other work on the computer adds is least in it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import skyward as sky
from benchmarks.figures import quantile
from benchmarks.stage import control_plane, folder
from benchmarks.starts import one_node
from benchmarks.traced_operator import STAMPS_VARIABLE
from skyward.cluster.api import Api
from skyward.local.operator import operator_command
from skyward.session import Session

if TYPE_CHECKING:
    from skyward.local.home import Home

CALLS: Final = 300
WARM: Final = 30
TASK_STEPS: Final = (
    ("posting", "client: pickle, make the Task"),
    ("heard", "API server: create, durable in etcd, and its event to the operator"),
    ("sent", "operator: admit, schedule, encode, to SSH"),
    ("agent", "SSH, the machine's server, agent: to a worker's pipe"),
    ("function", "worker: reads it, unpickles, calls"),
    ("result", "worker, agent's journal, SSH: back to the operator"),
    ("ending", "operator: the outcome, the final status"),
    ("event", "API server: status write, durable, and its event to the client"),
    ("returned", "client: wakes up, unpickles"),
)
"""What a stamp ends, in order."""
EXECUTOR_STEPS: Final = (
    ("sent", "client: pickle; WebSocket; operator: schedule, encode, to SSH"),
    *TASK_STEPS[3:6],
    ("returned", "operator: the outcome; WebSocket; client: unpickles, wakes up"),
)


@sky.function
def now() -> float:
    """The clock that all processes of a computer share."""
    return time.monotonic()


class Client:
    """The stamps of this process, by the name of the Task."""

    def __init__(self) -> None:
        self.posting = 0.0
        self.posted = 0.0
        self.event = 0.0
        self.name = ""
        self.uid = ""

    def listen(self) -> None:
        """Note when a create begins and ends, and when the final status comes."""
        create: Any = Api.create
        on_task: Any = Session._on_task

        def stamped_create(api: Any, kind: Any, body: Any) -> Any:
            self.posting = time.monotonic()
            made = create(api, kind, body)
            self.posted = time.monotonic()
            self.name, self.uid = made["metadata"]["name"], made["metadata"]["uid"]
            return made

        def stamped_event(session: Any, task: Any) -> None:
            if (task.get("status") or {}).get("phase") == "Succeeded":
                self.event = time.monotonic()
            on_task(session, task)

        setattr(Api, "create", stamped_create)  # noqa: B010 - a method is replaced on purpose
        setattr(Session, "_on_task", stamped_event)  # noqa: B010


def main() -> None:
    """Trace calls on a control plane of its own and print the medians of the steps."""
    os.environ["SKYWARD_CONTROL_PLANE"] = "local"
    with folder() as place:
        stamps = place / "stamps"
        os.environ |= {STAMPS_VARIABLE: str(stamps), "PYTHONPATH": str(Path(__file__).parents[1])}
        with control_plane(operator=_traced):
            client = Client()
            client.listen()  # before there is a session, which hands its methods on
            with one_node() as pool:
                tasks, calls = _tasks(pool, client), _executor_calls(pool, client)
        known = _read(stamps)
    _print("One call", tasks, known, TASK_STEPS)
    _print("One call of an Executor", calls, known, EXECUTOR_STEPS)


def _traced(home: Home) -> list[str]:
    python, _, _, *rest = operator_command(home)
    return [python, "-m", "benchmarks.traced_operator", *rest]


def _tasks(pool: sky.Pool, client: Client) -> list[dict[str, Any]]:
    calls = []
    for _ in range(WARM + CALLS):
        begin = time.monotonic()
        function = now() >> pool
        marks = {"begin": begin, "function": function, "returned": time.monotonic(), **vars(client)}
        calls.append(marks | {"call": f"{client.uid}.0"})
    return calls[WARM:]


def _executor_calls(pool: sky.Pool, client: Client) -> list[dict[str, Any]]:
    calls = []
    with sky.Executor(pool) as executor:
        for index in range(WARM + CALLS):
            begin = time.monotonic()
            function = executor.submit(time.monotonic).result()
            marks = {"begin": begin, "function": function, "returned": time.monotonic(), "name": client.name}
            calls.append(marks | {"call": f"{client.uid}.{index}"})
    return calls[WARM:]


def _read(file: Path) -> dict[str, dict[str, float]]:
    """The operator's stamps, by task and by call."""
    found: dict[str, dict[str, float]] = {}
    for line in file.read_text().splitlines():
        step, what, when = json.loads(line)
        found.setdefault(what, {})[step] = when
    return found


def _print(
    title: str,
    calls: list[dict[str, Any]],
    stamps: dict[str, dict[str, float]],
    steps: tuple[tuple[str, str], ...],
) -> None:
    taken: dict[str, list[float]] = {step: [] for step, _ in steps}
    for call in calls:
        marks = call | stamps[call["name"]] | stamps[call["call"]]
        before = marks["begin"]
        for step, _ in steps:
            taken[step].append(marks[step] - before)
            before = marks[step]
    print(f"\n{title}: {len(calls)} of them; load {os.getloadavg()[0]:.1f}\n")
    print("| step | median, ms | fastest tenth, ms |\n|---|---|---|")
    for step, text in steps:
        _row(text, taken[step])
    _row("**whole**", [call["returned"] - call["begin"] for call in calls])


def _row(text: str, seconds: list[float]) -> None:
    print(f"| {text} | {quantile(seconds, 50) * 1e3:.2f} | {quantile(seconds, 10) * 1e3:.2f} |")


if __name__ == "__main__":
    main()
