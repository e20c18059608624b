"""A program on spot machines that are taken back while it runs, and what is to be seen of it afterwards."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from tests.cluster.front_door import MINUTES, until
from tests.cluster.sim_process import Cloud, cloud, customer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.front_door import Person, Running

SHORT = 200
PROGRAM = f"""
import json, pathlib, sys, time
import skyward as sky

place = sys.argv[1]


@sky.function
def short(n):
    with open(f"{{place}}/short", "a") as runs:
        runs.write(f"{{n}}\\n")
    time.sleep(0.1)
    return n * n


@sky.function
def patient():
    call = sky.current()
    pathlib.Path(f"{{place}}/patient-{{call.attempt}}").touch()
    while call.stopping is None:
        time.sleep(0.05)
    return call.attempt, call.stopping, call.seconds_left


@sky.function
def stubborn():
    call = sky.current()
    pathlib.Path(f"{{place}}/stubborn-{{call.attempt}}").touch()
    while call.attempt == 1:
        time.sleep(0.05)
    return call.attempt


options = sky.Options(console="log", worker=sky.Worker(concurrency=2))
with sky.Compute(provider=sky.Sim(), nodes=2, allocation="spot", name="taken", options=options) as pool:
    first = patient() > pool
    while not pathlib.Path(f"{{place}}/patient-1").exists():
        time.sleep(0.05)
    second = stubborn() > pool
    while not pathlib.Path(f"{{place}}/stubborn-1").exists():
        time.sleep(0.05)
    values = pool.map(short, range({SHORT}))
    found = {{"values": values, "patient": first.result(), "stubborn": second.result()}}
    print(json.dumps(found), flush=True)
    while not pathlib.Path(f"{{place}}/enough").exists():
        time.sleep(0.05)
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The program under way, its cloud, and the folder in which its calls leave traces."""

    person: Person
    cloud: Cloud
    program: Running
    folder: Path

    def begins(self) -> list[str]:
        """Wait until calls of all kinds run. The machines that they run on."""
        short = self.folder / "short"
        until(lambda: short.exists() and short.read_text().count("\n") > 5, 3 * MINUTES)
        return [str(event["instance"]["id"]) for event in self.cloud.events("created")]

    def take(self, machine: str, notice: float) -> None:
        """Have the cloud announce that it takes a machine back."""
        key = (self.cloud.folder / "admin.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.cloud.endpoint}/admin/instances/{machine}/interrupt"
        httpx.post(url, headers=headers, json={"notice_seconds": notice}).raise_for_status()

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Objects of the default namespace."""
        items: list[dict[str, Any]] = json.loads(self.person.kubectl("get", kind, "-o", "json"))["items"]
        return items

    def leaving(self) -> list[dict[str, Any]]:
        """Nodes that wait for the calls which they have."""
        return [node for node in self.objects("skn") if node.get("status", {}).get("phase") == "Draining"]

    def told(self) -> set[str]:
        """Nodes whose machines will be taken, as the events say."""
        interrupted = [event for event in self.objects("events") if event["reason"] == "Interrupted"]
        kinds = [event["involvedObject"] for event in interrupted]
        return {str(node["name"]) for node in kinds if node["kind"] == "ComputeNode"}

    def ends(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """What the program got, and the attempts of its tasks by function; then it is let go."""
        line = self.program.until('"values"')
        found = json.loads(line[line.index("{") :])
        attempts = {task_kind(task): task["status"]["attempts"] for task in self.objects("skt")}
        (self.folder / "enough").touch()
        self.program.end()
        return found, attempts

    def came_right(self) -> None:
        """Nothing was lost, nothing ran twice in silence, and what replaced a machine came before its end."""
        found, attempts = self.ends()
        assert found["values"] == [n * n for n in range(SHORT)]
        number, why, left = found["patient"]
        assert (number, why) == (1, "preempted")
        assert left > 0
        assert found["stubborn"] == 2
        (again,) = attempts["stubborn"]["recent"]
        ends = (attempts["stubborn"]["interrupted"], again["cause"])
        assert ends == (1, "Interrupted"), self.cloud.events("gone")
        assert (attempts["patient"]["total"], attempts["patient"]["interrupted"]) == (1, 0)
        runs = Counter((self.folder / "short").read_text().split())
        repeated = sum(runs.values()) - SHORT
        assert set(runs) == {str(n) for n in range(SHORT)}
        assert repeated <= attempts["short"]["interrupted"], "some ran twice in silence"
        assert attempts["short"]["total"] == SHORT + attempts["short"]["interrupted"]
        bought = [event["time"] for event in self.cloud.events("created")]
        gone = [(event["cause"], event["time"]) for event in self.cloud.events("gone")]
        taken = [at for cause, at in gone if cause.startswith("interrupted")]
        assert (len(bought), len(taken)) == (4, 1), gone
        assert max(bought) < taken[0], "nothing was bought until the machine was gone"
        print(f"repeated: {repeated}, on record: {attempts['short']['interrupted']}")


def task_kind(task: dict[str, Any]) -> str:
    """Which of the three functions it is."""
    name = str(task["metadata"]["name"])
    return next(kind for kind in ("short", "patient", "stubborn") if name.startswith(kind))


@contextmanager
def scene() -> Iterator[Scene]:
    """All of it; afterwards the ledger shows that nothing is left."""
    with cloud() as seller:
        with customer(seller) as person:
            traces = person.folder / "traces"
            traces.mkdir()
            with person.starts(PROGRAM, str(traces)) as program:
                yield Scene(person, seller, program, traces)
        status, audit = seller.audit()
        assert status == 0, audit
