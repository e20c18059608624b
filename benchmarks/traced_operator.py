"""The operator, with a note of the time wherever a call passes: `python -m benchmarks.traced_operator run …`.

It is started by `trace`. Nothing in the operator knows of it; all processes of one computer share a clock.
"""

from __future__ import annotations

import json
import os
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import TASK
from skyward_operator.__main__ import main
from skyward_operator.kube.api import Api
from skyward_operator.kube.intake import Intake
from skyward_operator.nodes.session import Session
from skyward_operator.tasks.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

STAMPS_VARIABLE: Final = "SKYWARD_BENCHMARK_STAMPS"
"""Names the file to which each stamp is added as a line of JSON: step, task or call, seconds. A task is said
by its name, a call by the task's uid and its index."""


def _trace() -> None:
    file = os.open(os.environ[STAMPS_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def stamp(step: str, what: str, when: float | None = None) -> None:
        line = json.dumps([step, what, time.monotonic() if when is None else when]) + "\n"
        os.write(file, line.encode())

    def heard(_: Any, place: Any, event: Any) -> None:
        if place[0] is TASK and event["type"] == "ADDED":
            stamp("heard", event["object"]["metadata"]["name"])

    def started(_: Any, header: Any) -> None:
        ago = time.time() - header["time"]  # the agent's clock is this computer's
        stamp("agent", _call(header["attempt"]), time.monotonic() - ago)

    def result(_: Any, header: Any, *__: Any) -> None:
        stamp("result", _call(header["attempt"]))

    _before(Intake, "_take", heard)
    _before(Session, "started", started)
    _before(Session, "result", result)
    send = Sender.send

    @wraps(send)
    def stamped_send(self: Any, room: Any, live: Any, attempt: Any) -> bool:
        sent = send(self, room, live, attempt)
        stamp("sent", _call(attempt.id))
        return sent

    setattr(Sender, "send", stamped_send)  # noqa: B010 - a method is replaced on purpose
    patch: Any = Api.patch_status

    @wraps(patch)
    async def stamped_patch(self: Any, kind: Any, namespace: str, name: str, status: Any, **more: Any) -> Any:
        final = kind is TASK and status.get("phase") == "Succeeded"
        if final:
            stamp("ending", name)
        answer = await patch(self, kind, namespace, name, status, **more)
        if final:
            stamp("written", name)
        return answer

    setattr(Api, "patch_status", stamped_patch)  # noqa: B010


def _before(owner: type, name: str, note: Callable[..., None]) -> None:
    method = getattr(owner, name)

    @wraps(method)
    def noted(*arguments: Any) -> Any:
        note(*arguments)
        return method(*arguments)

    setattr(owner, name, noted)


def _call(attempt: str) -> str:
    return attempt.rsplit(".", 1)[0]


if __name__ == "__main__":
    _trace()
    main()
