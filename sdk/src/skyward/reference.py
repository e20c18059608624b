"""`sky.task(name)`: a Task that is there already, whoever sent it: its state, its results, its end.

Results can be taken while it runs, once it has ended, and again, as long as the Task exists. Who sent it has
the ticket on this computer; others need the right to update it (`skyward.cluster.tickets`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from skyward.cluster import tickets
from skyward.cluster.api import Api, ApiError
from skyward.cluster.cutter import Cutter
from skyward.cluster.download import download
from skyward.cluster.gateway import Gateway
from skyward.cluster.watch import Watch
from skyward.console import Console, open_console
from skyward.contract.names import TASK
from skyward.errors import TaskError
from skyward.gather import checked_on_error
from skyward.records import CallRecord, records_of
from skyward.results import OnError
from skyward.session import CONTROL_PLANE, open_api
from skyward.tasks import TaskHandle
from skyward.wire.digest import BytesLike

type Object = Mapping[str, Any]


def task(name: str, namespace: str | None = None) -> "TaskReference":
    """The Task of this name; the namespace is that of the kubeconfig unless given. Asks nobody yet."""
    return TaskReference(name, namespace)


@dataclass(frozen=True, slots=True)
class TaskReference:
    """A Task by name. Each use connects anew and raises TaskError if there is no such Task."""

    name: str
    namespace: str | None = None

    @property
    def status(self) -> dict[str, Any]:
        """The Task's status as it is now: `phase`, `reason`, `message`, `counts`, …"""
        with _Reading(self) as reading:
            return dict(reading.task.get("status") or {"phase": "Queued"})

    def cancel(self) -> None:
        """Ask for what has not ended to be stopped; the Task ends as cancelled soon after."""
        with _Reading(self) as reading:
            reading.api.patch(TASK, reading.place, self.name, {"spec": {"cancel": True}})

    def result(self, timeout: float | None = None, on_error: OnError = "raise") -> Any:
        """Wait for the end and return the value: of one call itself, of several a list in their order.

        Raises the first failure, or TimeoutError when the Task has not ended within `timeout` seconds (it
        goes on), or TaskError for an open Task, whose outcomes are with its client only.
        """
        checked_on_error(on_error)
        with _Reading(self) as reading, reading.handle() as handle:
            if timeout is not None and not handle.wait(timeout):
                raise TimeoutError(f"task {self.name} has not ended within {timeout:g} s; it goes on")
            values = handle.values(on_error=on_error)
            return values[0] if reading.count == 1 else values

    def results(self, *, ordered: bool = True, on_error: OnError = "raise") -> Iterator[Any]:
        """The value of each call while others still run. Leaving early leaves the Task alone.

        Raises TaskError for an open Task, whose outcomes are with its client only.
        """
        checked_on_error(on_error)
        return self._stream(ordered, on_error)

    def records(self, *, ordered: bool = True) -> Iterator[CallRecord]:
        """How each call ended: attempts, node, times, error; in the order of the calls, or as they end.

        Goes on until the Task has ended. Nothing is unpickled, and however many calls there are, few are kept
        in memory. Raises TaskError for an open Task, whose outcomes are with its client only.
        """
        with _Reading(self) as reading, reading.handle() as handle:
            yield from records_of(handle.outcomes(), ordered=ordered)

    def _stream(self, ordered: bool, on_error: OnError) -> Iterator[Any]:
        with _Reading(self) as reading, reading.handle() as handle:
            yield from handle.stream(ordered=ordered, on_error=on_error)


@dataclass(slots=True)
class _Reading:
    """The connections of one use. `with` it; `task` is the Task as it was then."""

    of: TaskReference
    console: Console = field(init=False)
    api: Api = field(init=False)
    task: Object = field(init=False)
    _gateway: Gateway | None = field(init=False, default=None)

    def __enter__(self) -> "_Reading":
        self.console = open_console()
        try:
            self.api = open_api(self.console)
        except BaseException:
            self.console.close()
            raise
        try:
            self.task = self._found()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._gateway is not None:
            self._gateway.close()
        self.api.close()
        self.console.close()

    @property
    def place(self) -> str:
        """The namespace."""
        return self.of.namespace or self.api.connection.namespace

    @property
    def count(self) -> int | None:
        """How many results the Task brings, None where its pool decides."""
        spec = self.task["spec"]
        if (spec.get("target") or {}).get("mode") == "All":
            return None
        if (items := (spec.get("function") or {}).get("items")) is not None:
            return len(items)
        return int((spec.get("calls") or {}).get("count", 1))

    @contextmanager
    def handle(self) -> Iterator[TaskHandle]:
        """The Task under a watch, from here to its end. Raises TaskError for one that keeps no outcomes."""
        self._refuse_open()
        name, pool = self.of.name, self.task["spec"]["poolRef"]["name"]
        handle = TaskHandle(name, pool, self.count, self.console, self._fetch, self._cancel, self._follow)
        watch = Watch(
            self.api,
            TASK,
            self.place,
            on_object=handle.on_object,
            on_gone=lambda _: handle.on_gone(),
            on_trouble=self._trouble,
            selectors={"fieldSelector": f"metadata.name={name}"},
        )
        try:
            watch.start()
            if not watch.objects and not handle.is_finished:
                handle.on_gone()  # since it was found
            yield handle
        finally:
            watch.stop()

    def _refuse_open(self) -> None:
        """What is left of an open Task's outcomes is what its client had not taken: no answer to anybody."""
        if (self.task["spec"].get("calls") or {}).get("open"):
            raise TaskError(
                f"task {self.of.name} is an open one (of an executor, a stream, or a map over an iterator): "
                "the values of its calls, and how they end, are told to its client and not kept",
                task=self.of.name,
                remedy="`sky.task(name).status` counts its calls; pool.map() over a list keeps values and "
                "records",
            )

    def _found(self) -> Object:
        found = self.api.get(TASK, self.place, self.of.name)
        if found is None:
            raise TaskError(
                f"there is no task {self.of.name} in namespace {self.place}",
                task=self.of.name,
                remedy="`skyward tasks` lists those that are there. One that has ended is deleted with its "
                "result and output when its ttl is over: 600 s unless sky.Options(result_ttl=...) says "
                "another time",
            )
        return found

    def _gate(self) -> Gateway:
        """The gateway, with a ticket that opens the Task."""
        if self._gateway is None:
            try:
                ticket = tickets.to_read(self.api, TASK, dict(self.task))
            except ApiError as error:
                raise TaskError(
                    f"the results of task {self.of.name} are for those who may update it: {error.message}",
                    task=self.of.name,
                    remedy="ask for the right to update tasks in this namespace, or whoever sent it",
                ) from error
            self._gateway = Gateway(self.api, ticket)
        return self._gateway

    def _fetch(self, name: str, blob: Mapping[str, Any]) -> BytesLike:
        begin = partial(self._gate().result, self.place, name)
        return download(name, int(blob["sizeBytes"]), str(blob["digest"]), begin)

    def _follow(self, name: str, start: int, cutter: Cutter) -> Iterator[bytes]:
        return self._gate().follow_results(self.place, name, start, cutter)

    def _cancel(self, name: str) -> None:
        self.api.patch(TASK, self.place, name, {"spec": {"cancel": True}})

    def _trouble(self, problem: str | None) -> None:
        if problem is None:
            self.console.done(CONTROL_PLANE)
        else:
            self.console.update(CONTROL_PLANE, f"does not answer, still waiting ({problem})", after=5.0)
