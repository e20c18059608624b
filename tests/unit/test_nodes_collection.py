"""Large results from the link to disk: fetched, checked, resumed, left with the agent without room."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from skyward.wire.digest import digest
from skyward_operator.nodes import collection
from skyward_operator.nodes.collection import AT_ONCE, HIGH_WATER, Collector
from skyward_operator.nodes.received import ROOM, Part, Received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path


class Agent:
    """What is at the other end of the link, and who wants the results."""

    def __init__(self) -> None:
        self.fetches: list[tuple[str, int, int]] = []
        self.arrivals: list[tuple[Mapping[str, Any], Received | bytes]] = []
        self.troubles: list[str | None] = []
        self.reading = True
        self.closed = ""

    def fetch(self, attempt: str, offset: int, fetch: int) -> None:
        """Line"""
        self.fetches.append((attempt, offset, fetch))

    def pause_reading(self) -> None:
        """Line"""
        self.reading = False

    def resume_reading(self) -> None:
        """Line"""
        self.reading = True

    def close(self, reason: str = "") -> None:
        """Line"""
        self.closed = reason

    def arrived(self, header: Mapping[str, Any], body: Received | bytes) -> None:
        """Taker"""
        self.arrivals.append((header, body))

    def stalled(self, attempt: str, trouble: str | None) -> None:
        """Taker"""
        self.troubles.append(trouble)

    def send(self, collector: Collector, data: bytes, end: int | None = None, step: int = 100_000) -> None:
        """The bytes that were asked for last, up to `end`."""
        attempt, offset, number = self.fetches[-1]
        end = len(data) if end is None else end
        for start in range(offset, end, step):
            body = data[start : min(start + step, end)]
            header = {"attempt": attempt, "fetch": number, "offset": start}
            collector.piece(header | {"last": start + len(body) == len(data)}, body)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
async def collector(tmp_path: Path, agent: Agent) -> AsyncIterator[Collector]:
    made = Collector(tmp_path / "in", agent)
    made.attach(agent, ())
    yield made
    await made.aclose()


def announcement(data: bytes, attempt: str = "t.0.1") -> dict[str, Any]:
    return {"attempt": attempt, "ok": True, "size": len(data), "chunked": True, "digest": digest(data)}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def content(body: Received | bytes) -> bytes:
    assert isinstance(body, Received)
    return body.path.read_bytes()[ROOM:]


async def test_announced_result_is_fetched_and_handed_on_in_a_file(
    collector: Collector, agent: Agent
) -> None:
    data = os.urandom(1_000_000)
    collector.announce(announcement(data))
    agent.send(collector, data)
    await until(lambda: agent.arrivals)
    header, body = agent.arrivals[0]
    assert (header["attempt"], content(body)) == ("t.0.1", data)


async def test_next_link_goes_on_behind_what_arrived(collector: Collector, agent: Agent) -> None:
    data = os.urandom(1_000_000)
    collector.announce(announcement(data))
    agent.send(collector, data, end=600_000)
    old = agent.fetches[-1]
    collector.detach()
    collector.attach(agent, ["t.0.1"])
    collector.announce(announcement(data))
    assert agent.fetches[-1][1] == 600_000
    collector.piece({"attempt": old[0], "fetch": old[2], "offset": 600_000, "last": False}, b"stale")
    agent.send(collector, data)
    await until(lambda: agent.arrivals)
    assert content(agent.arrivals[0][1]) == data


async def test_what_the_agent_holds_no_more_is_dropped(
    collector: Collector, agent: Agent, tmp_path: Path
) -> None:
    data = os.urandom(1_000_000)
    collector.announce(announcement(data))
    agent.send(collector, data, end=600_000)
    await until(lambda: list((tmp_path / "in").glob("*")) and collector._writer is None)
    collector.detach()
    collector.attach(agent, ())
    await until(lambda: not list((tmp_path / "in").glob("*")))


async def test_link_is_not_read_while_the_disk_is_behind(collector: Collector, agent: Agent) -> None:
    data = os.urandom(2 * HIGH_WATER)
    collector.announce(announcement(data))
    agent.send(collector, data, end=HIGH_WATER + 100_000)
    assert not agent.reading
    await until(lambda: agent.reading)
    attempt, _, number = agent.fetches[-1]
    agent.fetches.append((attempt, HIGH_WATER + 100_000, number))
    agent.send(collector, data)
    await until(lambda: agent.arrivals)
    assert content(agent.arrivals[0][1]) == data


async def test_result_that_does_not_fit_stays_with_the_agent_until_it_does(
    collector: Collector, agent: Agent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(collection, "RETRY_SECONDS", 0.0)
    data, original, full = os.urandom(500_000), Part.append, [True]

    def append(part: Part, pieces: list[bytes]) -> None:
        original(part, pieces)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Part, "append", append)
    collector.announce(announcement(data))
    agent.send(collector, data)
    await until(lambda: agent.troubles)
    assert "No space left on device" in str(agent.troubles[0])
    assert "kept on the node" in str(agent.troubles[0])
    assert agent.arrivals == []
    full.clear()
    await until(lambda: agent.fetches[-1][1] == 0 and agent.fetches[-1][2] > agent.fetches[0][2])
    agent.send(collector, data)
    await until(lambda: agent.arrivals)
    assert content(agent.arrivals[0][1]) == data
    assert agent.troubles[-1] is None
    assert len(list((tmp_path / "in").glob("*"))) == 1


async def test_result_that_keeps_coming_damaged_ends_as_a_failure(collector: Collector, agent: Agent) -> None:
    data = os.urandom(300_000)
    collector.announce(announcement(data))
    for number in range(1, collection.TRIES + 1):
        await until(lambda number=number: len(agent.fetches) == number)  # type: ignore[misc]
        agent.send(collector, b"x" + data[1:])
    await until(lambda: agent.arrivals)
    header, body = agent.arrivals[0]
    assert not header["ok"]
    assert "SHA-256" in header["error"]["message"]
    assert body == b""


async def test_pieces_that_do_not_fit_cost_the_link(collector: Collector, agent: Agent) -> None:
    data = os.urandom(300_000)
    collector.announce(announcement(data))
    attempt, _, number = agent.fetches[-1]
    collector.piece({"attempt": attempt, "fetch": number, "offset": 5, "last": False}, b"x")
    assert "do not fit" in agent.closed


async def test_few_results_are_fetched_at_once(collector: Collector, agent: Agent) -> None:
    data = os.urandom(100_000)
    for index in range(AT_ONCE + 2):
        collector.announce(announcement(data, f"t.{index}.1"))
    assert len(agent.fetches) == AT_ONCE
    agent.send(collector, data)
    await until(lambda: len(agent.fetches) == AT_ONCE + 1)
    collector.forget("t.0.1")
    assert len(agent.fetches) == AT_ONCE + 2


def test_result_that_would_take_the_reserve_of_the_disk_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        f_bavail, f_blocks, f_frsize = 300 << 8, 100 << 18, 4096  # 300 MiB of 100 GiB

    monkeypatch.setattr("skyward_operator.disk.os.statvfs", lambda _: Disk)
    part = Part(tmp_path / "part", 100 << 20)
    with pytest.raises(OSError, match=r"104,857,600 bytes do not fit .* 314,572,800 are free, and 268"):
        part.append([b"x"])
    part.drop()
    small = Part(tmp_path / "small", 1 << 20)
    small.append([b"x"])
    Disk.f_bavail = 200 << 8
    with pytest.raises(OSError, match="do not fit"):
        small.append([b"x"])
    small.drop()


def test_result_larger_than_the_disk_is_not_begun(tmp_path: Path) -> None:
    part = Part(tmp_path / "part", 1 << 60)
    with pytest.raises(OSError, match="do not fit"):
        part.append([b"x"])
    part.drop()
    assert list(tmp_path.iterdir()) == []
