"""The link: real SSH to a local machine, and the real agent on it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest
from tests.fake.machines import SERVERS, ensure_sshd, lab

from skyward.contract.image import Image
from skyward.contract.pool import Worker
from skyward.wire import codec
from skyward.wire.bundle import bundle
from skyward.wire.frames import Frame, FrameKind
from skyward_operator.nodes.bootstrap import bootstrap, start_agent
from skyward_operator.nodes.image import plan
from skyward_operator.nodes.link import AgentLink, LinkClosed, open_link
from skyward_operator.providers.conformance import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.fake.machines import Lab

PYTHON = "{}.{}".format(*__import__("sys").version_info[:2])


@dataclass
class Recorder:
    """Keeps what an agent says."""

    results: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    logs: defaultdict[str, bytes] = field(default_factory=lambda: defaultdict(bytes))
    running: set[str] = field(default_factory=set)
    beats: int = 0
    notices: list[float] = field(default_factory=list)
    illnesses: list[str] = field(default_factory=list)
    pieces: dict[str, tuple[dict[str, Any], bytearray]] = field(default_factory=dict)
    link: AgentLink | None = None
    streams: list[Frame] = field(default_factory=list)

    def step(self, name: str) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def heard(self) -> None:
        """The answer to a ping."""
        self.beats += 1

    async def was_heard(self) -> bool:
        """Whether a ping was answered."""
        return self.beats > 0

    def noticed(self, left: float) -> None:
        """The machine is taken back."""
        self.notices.append(left)

    def fell_ill(self, ill: str) -> None:
        """The node is ill, or well again."""
        self.illnesses.append(ill)

    def started(self, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        self.running.add(header["attempt"])

    def log(self, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        self.logs[header["attempt"]] += body

    def streamed(self, frame: Frame) -> None:
        """A frame of a stream."""
        self.streams.append(frame)

    async def streamed_past(self, count: int) -> bool:
        """Whether more frames of streams have come."""
        return len(self.streams) > count

    def result(self, header: Mapping[str, Any], body: bytes) -> None:
        """A whole result."""
        self.results[header["attempt"]] = (dict(header), body)
        self.order.append(header["attempt"])

    def announced(self, header: Mapping[str, Any]) -> None:
        """A large result waits: fetch it."""
        assert self.link is not None
        self.pieces[header["attempt"]] = (dict(header), bytearray())
        self.link.fetch(header["attempt"], 0, 1)

    def piece(self, header: Mapping[str, Any], body: bytes) -> None:
        """Some bytes of it."""
        announced, whole = self.pieces[header["attempt"]]
        assert header["offset"] == len(whole)
        whole += body
        if header["last"]:
            self.result(announced, bytes(whole))

    async def outcome(self, attempt: str) -> tuple[dict[str, Any], bytes]:
        """The result of an attempt, once it is there."""

        async def look() -> bool:
            return attempt in self.results

        await until(look)
        return self.results[attempt]


@asynccontextmanager
async def node(
    place: Lab, recorder: Recorder, server: str = "asyncssh", slots: int = 1
) -> AsyncIterator[tuple[asyncssh.SSHClientConnection, str]]:
    """A machine that was made a node: a connection to it, and its agent's socket."""
    async with place.connection(await place.machine(server)) as connection:
        image = Image.read({"python": PYTHON})
        made = plan(image, Worker(concurrency=slots), bundle())
        facts = await bootstrap(connection, made, recorder)
        yield connection, facts["socket"]


async def nobody_listens(connection: asyncssh.SSHClientConnection, socket: str) -> bool:
    """Whether the agent's socket is dead."""
    try:
        (await open_link(connection, socket, Recorder())).close()
    except asyncssh.ChannelOpenError:
        return True
    return False


def call(number: int, function: str | None = None, **fields: Any) -> dict[str, Any]:
    """The header of a call."""
    return {
        "attempt": f"uid.{number}.1",
        "task": "ns/t",
        "index": number,
        "number": 1,
        "function": function,
        **fields,
    }


@pytest.mark.parametrize("server", SERVERS)
async def test_a_call_goes_there_and_its_output_and_result_come_back(server: str) -> None:
    ensure_sshd()
    recorder = Recorder()
    function = codec.dumps_function(lambda x: print("hello", x) or x * 2)
    digest = hashlib.sha256(function).hexdigest()
    async with lab() as place, node(place, recorder, server) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        welcome = await link.hello("test", 1, Worker())
        assert welcome["python"].startswith(PYTHON)
        assert welcome["bundle"] == bundle()[0]
        link.ensure_function(digest, function)
        link.send_call(call(0, digest), codec.dumps(((21,), {})))
        header, body = await recorder.outcome("uid.0.1")
        assert header["ok"], header
        assert codec.loads(body) == 42
        assert recorder.logs["uid.0.1"] == b"hello 21\n"


async def test_items_of_a_call_come_as_its_credit_allows() -> None:
    def count() -> Any:
        yield from range(1000)

    recorder = Recorder()
    function = codec.dumps_function(count)
    digest = hashlib.sha256(function).hexdigest()
    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        await link.hello("test", 1, Worker())
        link.ensure_function(digest, function)
        link.send_call(call(0, digest, stream=True), codec.dumps(((), {})))
        while len(recorder.streams) < 1001:
            seen = len(recorder.streams)
            link.pass_on(Frame(FrameKind.CREDIT, {"attempt": "uid.0.1", "taken": seen}))
            await until(partial(recorder.streamed_past, seen))
        link.pass_on(Frame(FrameKind.CREDIT, {"attempt": "uid.0.1", "taken": 1001}))
        assert (await recorder.outcome("uid.0.1"))[0]["ok"]
        items = [codec.loads(frame.body) for frame in recorder.streams[:-1]]
        assert items == list(range(1000))
        assert recorder.streams[-1].header["end"]


async def test_large_arguments_and_results_travel_whole_and_small_calls_do_not_wait_for_them() -> None:
    recorder = Recorder()
    data = os.urandom(20 * 1024 * 1024)
    function = codec.dumps_function(lambda data: data)
    digest = hashlib.sha256(function).hexdigest()
    async with lab() as place, node(place, recorder, slots=2) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        recorder.link = link
        await link.hello("test", 1, Worker(concurrency=2))
        link.ensure_function(digest, function)
        link.send_call(call(0, digest), codec.dumps(((data,), {})))
        link.send_call(call(1, digest), codec.dumps(((b"small",), {})))
        _, body = await recorder.outcome("uid.0.1")
        assert codec.loads(body) == data
        assert recorder.order == ["uid.1.1", "uid.0.1"]


async def test_calls_that_share_a_blob_wait_for_it_and_send_it_once() -> None:
    recorder = Recorder()
    arguments = codec.dumps(((os.urandom(3 * 1024 * 1024),), {}))
    shared = hashlib.sha256(arguments).hexdigest()
    function = codec.dumps_function(len)
    digest = hashlib.sha256(function).hexdigest()
    read = []

    def chunks() -> Any:
        for start in range(0, len(arguments), 100_000):
            read.append(start)
            yield arguments[start : start + 100_000]

    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        await link.hello("test", 1, Worker())
        link.ensure_function(digest, function)
        for number in range(5):
            link.send_blob(shared, chunks(), len(arguments))
            link.send_call(call(number, digest, args=shared), None)
        for number in range(5):
            header, body = await recorder.outcome(f"uid.{number}.1")
            assert header["ok"], header
            assert codec.loads(body) == 3 * 1024 * 1024
        assert len(read) == -(-len(arguments) // 100_000)


async def test_a_truncated_blob_is_refused_by_the_agent_and_the_link_lives_on() -> None:
    recorder = Recorder()
    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        await link.hello("test", 1, Worker())
        link.send_blob("ab" * 32, [b"x" * 10], 500_000)
        link.send_call(call(0, entry={"argv": ["true"]}, args="ab" * 32), None)
        link.send_call(call(1, entry={"argv": ["true"]}), None)
        header, _ = await recorder.outcome("uid.1.1")
        assert header["ok"], header


async def test_the_agent_holds_a_result_until_it_is_acknowledged_across_connections() -> None:
    recorder, second = Recorder(), Recorder()
    async with lab() as place:
        machine = await place.machine()
        async with place.connection(machine) as connection:
            made = plan(Image.read({"python": PYTHON}), Worker(), bundle())
            socket = (await bootstrap(connection, made, recorder))["socket"]
            link = await open_link(connection, socket, recorder)
            await link.hello("test", 1, Worker())
            link.send_call(call(0, entry={"argv": ["true"]}), None)
            await recorder.outcome("uid.0.1")
        async with place.connection(machine) as connection:
            link = await open_link(connection, socket, second)
            welcome = await link.hello("test", 2, Worker())
            assert [(held["attempt"], held["state"]) for held in welcome["held"]] == [("uid.0.1", "done")]
            await second.outcome("uid.0.1")
            link.ack(["uid.0.1"])
            watching = asyncio.create_task(link.watch())
            await until(second.was_heard)  # a round trip after the ACK
            link.close()
            await watching
            link = await open_link(connection, socket, Recorder())
            assert not (await link.hello("test", 3, Worker()))["held"]


async def test_an_older_operator_is_turned_away() -> None:
    recorder = Recorder()
    async with lab() as place, node(place, recorder) as (connection, socket):
        first = await open_link(connection, socket, recorder)
        await first.hello("new", 7, Worker())
        old = await open_link(connection, socket, recorder)
        with pytest.raises(LinkClosed, match="StaleEpoch"):
            await old.hello("old", 6, Worker())
        assert not first.closed.done()


async def test_a_result_over_the_limit_of_the_hello_stays_on_its_node() -> None:
    recorder = Recorder()
    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        await link.hello("test", 1, Worker(), largest_result=1000)
        link.send_call(call(0, entry={"entrypoint": "builtins:bytes", "args": [2000]}), None)
        header, _ = await recorder.outcome("uid.0.1")
        assert header["error"]["reason"] == "ResultTooLarge"


async def test_a_dead_agent_is_noticed_and_started_again() -> None:
    recorder = Recorder()
    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        boot = (await link.hello("test", 1, Worker()))["boot_id"]
        await connection.run("pkill -9 -u $(id -u) -f 'skyward.agent .*'$HOME")
        assert await asyncio.wait_for(asyncio.shield(link.closed), 10)
        await until(lambda: nobody_listens(connection, socket))
        await start_agent(connection)
        again = await open_link(connection, socket, recorder)
        assert (await again.hello("test", 1, Worker()))["boot_id"] != boot


async def test_stop_ends_the_agent_after_its_calls() -> None:
    recorder = Recorder()
    async with lab() as place, node(place, recorder) as (connection, socket):
        link = await open_link(connection, socket, recorder)
        await link.hello("test", 1, Worker())
        link.send_call(call(0, entry={"argv": ["sh", "-c", "sleep 0.2; echo done"]}), None)
        link.stop(10)
        reason = await asyncio.wait_for(asyncio.shield(link.closed), 15)
        assert "closed" in reason
        assert recorder.results["uid.0.1"][0]["ok"]
        assert isinstance(link, AgentLink)
