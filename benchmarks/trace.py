"""Where the time of one call goes: `python -m benchmarks.trace`, step by step through every process.

The steps of a call follow each other without a gap, so their medians add up to that of the whole, nearly.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import skyward as sky
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
STEPS: Final = (
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
            calls = _calls()
        _print(calls, _read(stamps))


def _traced(home: Home) -> list[str]:
    python, _, _, *rest = operator_command(home)
    return [python, "-m", "benchmarks.traced_operator", *rest]


def _calls() -> list[dict[str, Any]]:
    client, calls = Client(), list[dict[str, Any]]()
    client.listen()  # before there is a session, which hands its methods on
    with one_node() as pool:
        for number in range(WARM + CALLS):
            begin = time.monotonic()
            function = now() >> pool
            returned = time.monotonic()
            if number >= WARM:
                calls.append({"begin": begin, "function": function, "returned": returned, **vars(client)})
    return calls


def _read(file: Path) -> dict[str, dict[str, float]]:
    """The operator's stamps, by name or uid of the task."""
    found: dict[str, dict[str, float]] = {}
    for line in file.read_text().splitlines():
        step, task, when = json.loads(line)
        found.setdefault(task, {})[step] = when
    return found


def _print(calls: list[dict[str, Any]], stamps: dict[str, dict[str, float]]) -> None:
    taken: dict[str, list[float]] = {step: [] for step, _ in STEPS}
    answers, writes = list[float](), list[float]()
    for call in calls:
        marks = call | stamps[call["name"]] | stamps[call["uid"]]
        before = marks["begin"]
        for step, _ in STEPS:
            taken[step].append(marks[step] - before)
            before = marks[step]
        answers.append(marks["posted"] - marks["posting"])
        writes.append(marks["written"] - marks["ending"])
    whole = statistics.median(call["returned"] - call["begin"] for call in calls)
    print(
        f"{len(calls)} calls, medians; load {os.getloadavg()[0]:.1f}\n\n| step | ms | share |\n|---|---|---|"
    )
    for step, text in STEPS:
        median = statistics.median(taken[step])
        print(f"| {text} | {median * 1e3:.2f} | {median / whole:.0%} |")
    print(f"| **whole** | **{whole * 1e3:.2f}** | |")
    print(f"\ncreate until its answer {statistics.median(answers) * 1e3:.2f} ms, ", end="")
    print(f"status write until its answer {statistics.median(writes) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
