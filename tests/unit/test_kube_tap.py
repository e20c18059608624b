"""What the tap takes off a watch, and what it leaves for kopf."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest
from yarl import URL

from skyward_operator.kube.tap import Tap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

PATH = "/apis/skyward.dev/v1alpha1/tasks"


class Body:
    """The body of an answer, in chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.total_bytes = sum(map(len, chunks))

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk

    async def read(self) -> bytes:
        return b"".join(self.chunks)


class Answer:
    """As much of an HTTP exchange as the tap looks at."""

    def __init__(self, body: Body, query: str = "watch=true", status: int = 200, path: str = PATH) -> None:
        self.url = URL(f"http://host{path}?{query}")
        self.status = status
        self.content: Any = body


class Tapped:
    """A tap, and what it took."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.tap = Tap({PATH: "here"}, self._take, self._listed)

    async def open(self, answer: Answer) -> Any:
        """The answer as kopf gets it."""

        async def handler(_: aiohttp.ClientRequest) -> aiohttp.ClientResponse:
            return cast("aiohttp.ClientResponse", answer)

        return await self.tap(cast("aiohttp.ClientRequest", answer), handler)

    async def told(self, *chunks: bytes) -> list[dict[str, Any]]:
        """What kopf reads of a watch with this body."""
        answer = await self.open(Answer(Body(*chunks)))
        return [json.loads(line) async for line in _lines(answer)]

    def _take(self, place: str, event: dict[str, Any]) -> str:
        version = str(event["object"]["metadata"]["resourceVersion"])
        self.taken.append((place, event["type"], version))
        return version

    async def _listed(self, place: str) -> str:
        return f"the version of {place}"


async def _lines(answer: Any) -> AsyncIterator[bytes]:
    async for chunk in answer.content.iter_chunked(1):
        for line in chunk.splitlines():
            yield line


def line(type_: str, version: int) -> bytes:
    event = {"type": type_, "object": {"metadata": {"name": "ü", "resourceVersion": str(version)}}}
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def versions(told: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["resourceVersion"]) for event in told]


async def test_events_are_taken_and_kopf_hears_how_far_they_were() -> None:
    tapped = Tapped()
    told = await tapped.told(line("ADDED", 3) + line("MODIFIED", 4) + line("DELETED", 5))

    assert tapped.taken == [("here", "ADDED", "3"), ("here", "MODIFIED", "4"), ("here", "DELETED", "5")]
    assert versions(told) == [("BOOKMARK", "5")]


async def test_bookmarks_and_errors_are_left_to_kopf() -> None:
    tapped = Tapped()
    error = b'{"type":"ERROR","object":{"code":410}}\n'
    told = await tapped.told(line("ADDED", 3) + line("BOOKMARK", 9), error)

    assert versions(told[:1]) == [("BOOKMARK", "9")]
    assert told[1] == json.loads(error)
    assert tapped.taken == [("here", "ADDED", "3")]


async def test_events_are_whole_wherever_the_bytes_are_cut() -> None:
    whole = line("ADDED", 1) + line("MODIFIED", 2) + line("DELETED", 3)
    for cut in range(len(whole)):
        tapped = Tapped()
        await tapped.told(whole[:cut], whole[cut:])

        assert [version for *_, version in tapped.taken] == ["1", "2", "3"]


async def test_many_events_at_once_are_all_taken() -> None:
    tapped = Tapped()
    told = await tapped.told(b"".join(line("ADDED", number) for number in range(1, 101)))

    assert len(tapped.taken) == 100
    assert versions(told)[-1] == ("BOOKMARK", "100")


async def test_half_an_event_at_the_end_is_an_error() -> None:
    tapped = Tapped()
    with pytest.raises(orjson.JSONDecodeError):
        await tapped.told(line("ADDED", 1) + line("ADDED", 2)[:-9])

    assert len(tapped.taken) == 1


async def test_kopf_gets_an_empty_list_that_ends_where_ours_does() -> None:
    items = json.dumps({"metadata": {"resourceVersion": "7", "continue": "x"}, "items": [{}]}).encode()
    answer = await Tapped().open(Answer(Body(items), "limit=1"))

    assert json.loads(await answer.content.read()) == {
        "metadata": {"resourceVersion": "the version of here"},
        "items": [],
    }


async def test_refusals_and_other_collections_are_left_alone() -> None:
    for answer in (Answer(Body(b"no"), status=403), Answer(Body(b"no"), path="/api")):
        got = await Tapped().open(answer)

        assert got.content is answer.content
        assert await got.content.read() == b"no"
