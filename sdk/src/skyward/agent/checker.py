"""A process that runs one health check again and again: `python -m skyward.agent.checker`.

Beside the workers and in none of them: what it does to its process, or how long it takes, holds up no call.
Its standard input is the pickled function in base64 on one line, then an empty line for each run; each run is
answered with a line of JSON. What the function prints goes nowhere. When the agent is gone, so is this.
"""

import base64
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from skyward.wire.codec import loads

_WORDS = 500


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    pickled = base64.b64decode(sys.stdin.readline())
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, asked), name="agent", daemon=True).start()
    function: Callable[[], Any] | None
    reason = ""
    try:
        function = loads(pickled)
    except BaseException as error:  # whatever its modules raise while they are imported
        reason = f"the health check cannot be loaded on the node: {type(error).__name__}: {error}"
        function = None
    while True:
        asked.get()
        why = reason if function is None else _run(function)
        answers.write(json.dumps({"why": why[:_WORDS]}) + "\n")


def _run(function: Callable[[], Any]) -> str:
    """Why the node is not well; empty if it is."""
    try:
        return "" if function() else "the health check returned a false value"
    except BaseException as error:  # also SystemExit: it is a check that failed, no end of this process
        return f"the health check raised {type(error).__name__}: {error}"


def _listen(stream: TextIO, asked: "queue.SimpleQueue[None]") -> None:
    for _ in stream:
        asked.put(None)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
