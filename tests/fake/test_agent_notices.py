"""Calls hear that their machine will be taken: from its metadata service, and from the operator."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.fake.agent_process import AgentProcess, running_agent, wait_until

from skyward.agent.metadata import seconds_left
from skyward.wire.envelopes import INTERRUPTION
from skyward.wire.frames import FrameKind

SIM = {"base": "", "path": "/interruption", "time_field": "at", "every": 0.1}
AWS = {
    "base": "",
    "path": "/latest/meta-data/spot/instance-action",
    "time_field": "time",
    "token_path": "/latest/api/token",
    "token_header": "X-aws-ec2-metadata-token",
    "token_headers": {"X-aws-ec2-metadata-token-ttl-seconds": "300"},
}


class Service(ThreadingHTTPServer):
    """A metadata service; `notice` is what it tells, and `token` what it wants to see."""

    daemon_threads = True
    notice: dict[str, Any] | None = None
    token = ""
    status = 404

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One question."""

    server: Service

    def do_GET(self) -> None:
        """The notice, if there is one."""
        seen = self.headers.get("X-aws-ec2-metadata-token", "")
        if self.server.token and seen != self.server.token:
            self._say(401, b"")
        elif self.server.notice is None:
            self._say(self.server.status, b"")
        else:
            self._say(200, json.dumps(self.server.notice).encode())

    def do_PUT(self) -> None:
        """A token, for who asks as the service wants it."""
        asked = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._say(200 if asked else 400, self.server.token.encode())

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def service() -> Iterator[Service]:
    """A metadata service on a port of its own."""
    with Service(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def at(seconds: float) -> str:
    """A time in so many seconds, as clouds write it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.fixture(params=["process", "thread"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", slots=2, executor=request.param) as agent:
        yield agent


def watchful() -> tuple[str, bool]:
    import time as clock

    from skyward.runtime import current

    call = current()
    assert (call.stopping, call.seconds_left) == (None, None)
    print("waiting", flush=True)
    while (reason := call.stopping) is None:
        clock.sleep(0.01)
    left = call.seconds_left
    return reason, left is not None and 30 < left < 61


def told() -> str | None:
    from skyward.runtime import current

    return current().stopping


def test_a_running_call_and_those_after_it_hear_the_operators_word(agent: AgentProcess) -> None:
    operator = agent.connect()
    operator.call("self.0.1", watchful)
    operator.output("self.0.1", "waiting")
    operator.send(FrameKind.LEAVING, {"reason": "preempted", "left": 60.0})
    assert operator.result("self.0.1").value == ("preempted", True)
    assert operator.run("self.1.1", told).value == "preempted"
    operator.slice("map.0.1", lambda _: told(), range(3))
    assert operator.ends("map.0.1", 3).values() == dict.fromkeys(range(3), "preempted")
    operator.close()


def test_a_worker_that_begins_after_the_word_hears_it_too(tmp_path: Path) -> None:
    with running_agent(tmp_path / "agent", slots=1) as agent:
        operator = agent.connect()
        operator.send(FrameKind.LEAVING, {"reason": "preempted", "left": 60.0})
        operator.run("dies.0.1", lambda: __import__("os")._exit(1))
        assert operator.run("next.0.1", told).value == "preempted"
        operator.close()


def test_an_end_that_comes_after_the_word_is_told_as_what_it_is(agent: AgentProcess) -> None:
    def patient() -> None:
        from skyward.runtime import current

        call = current()
        while call.stopping is None:
            time.sleep(0.01)
        try:
            print("warned", flush=True)
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            print(f"then {call.stopping} {call.seconds_left}", flush=True)

    operator = agent.connect()
    operator.call("self.0.1", patient)
    operator.send(FrameKind.LEAVING, {"reason": "preempted", "left": 60.0})
    operator.output("self.0.1", "warned")
    operator.send(FrameKind.CANCEL, {"attempt": "self.0.1", "grace": 20})
    operator.output("self.0.1", "then cancelled None")
    assert operator.result("self.0.1").error["reason"] == "Cancelled"
    operator.close()


def test_the_machine_is_asked_and_tells_calls_the_operator_and_the_next_one(agent: AgentProcess) -> None:
    with service() as cloud:
        operator = agent.connect(metadata=SIM | {"base": cloud.url})
        operator.call("self.0.1", watchful)
        operator.output("self.0.1", "waiting")
        cloud.notice = {"at": at(60)}
        assert 30 < operator.expect(FrameKind.NOTICE, reason=INTERRUPTION).header["left"] <= 60
        assert operator.result("self.0.1").value == ("preempted", True)
        operator.close()
    again = agent.connect()
    assert 0 < again.welcome["left"] <= 60
    again.close()


def test_the_machine_is_asked_on_while_nobody_is_connected(agent: AgentProcess) -> None:
    with service() as cloud:
        operator = agent.connect(metadata=SIM | {"base": cloud.url})
        operator.call("self.0.1", watchful)
        operator.output("self.0.1", "waiting")
        operator.close()
        cloud.notice = {"at": at(60)}
        again = agent.connect()
        assert again.result("self.0.1").value == ("preempted", True)
        again.close()


@pytest.mark.parametrize("trouble", ["refuses", "fails", "babbles"])
def test_a_service_that_cannot_be_asked_is_asked_again(tmp_path: Path, trouble: str) -> None:
    with service() as cloud, running_agent(tmp_path / "agent", slots=1) as agent:
        cloud.status = 503
        cloud.token = "wanted" if trouble == "refuses" else ""
        cloud.notice = {"when": "soon"} if trouble == "babbles" else None
        operator = agent.connect(metadata=SIM | {"base": cloud.url})
        wait_until(lambda: "the metadata service cannot be asked" in agent.log)
        cloud.token, cloud.notice = "", {"at": at(60)}
        operator.expect(FrameKind.NOTICE, reason=INTERRUPTION)
        operator.close()


def test_a_service_with_tokens_is_asked_with_one() -> None:
    with service() as cloud:
        cloud.token = "a-token"
        asked = AWS | {"base_variable": "WHERE"}
        assert seconds_left(asked, {"WHERE": cloud.url}) is None
        cloud.notice = {"action": "terminate", "time": at(120)}
        left = seconds_left(asked, {"WHERE": cloud.url})
        assert left is not None
        assert 60 < left <= 120
        cloud.notice = {"action": "terminate", "time": at(-120)}
        assert seconds_left(asked, {"WHERE": cloud.url}) == 0
        with pytest.raises(ValueError, match="no address"):
            seconds_left(asked, {})
