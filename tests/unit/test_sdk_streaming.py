"""The caller's end of streams: which arguments are pulled, and what frames of which attempt count."""

from __future__ import annotations

import collections.abc
import threading
import typing
from typing import TYPE_CHECKING, Any

import pytest

from skyward.errors import EnvironmentMismatch, GatewayError, NodeLost, TaskCancelled
from skyward.feeding import Feed, take_inputs
from skyward.functions import PendingFunction
from skyward.streaming import CallFlow, ItemIterator, refuse_items, yields
from skyward.wire.codec import dumps, loads
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.frames import CHUNK, Frame, FrameKind
from skyward.wire.package import Outcome
from skyward.wire.raised import loads_error
from skyward.wire.streams import InputMark

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator


def pulls(a: Iterator[int], b: Iterable[int], c: Generator[int], d: list[int], e: Any = None) -> None: ...
def pulls_many(*items: Iterator[int], **named: Iterator[int]) -> None: ...
def evaluates_nothing(items: Iterator[Unknown], more: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def given() -> Iterator[int]:
    yield 1


def test_iterators_are_taken_where_the_annotation_says_so() -> None:
    one, two, three, four = given(), given(), iter([1]), given()
    pending, feeds = take_inputs(PendingFunction(pulls, (one, two, three), {"d": four, "e": given}))
    assert pending.args == (InputMark(0), InputMark(1), InputMark(2), four, given)
    assert feeds == [one, two, three]


def test_what_is_no_iterator_is_sent_as_it_is() -> None:
    pending = PendingFunction(pulls, ([1], range(3), (1,), [2]))
    assert take_inputs(pending) == (pending, [])


def test_iterators_are_taken_out_of_many_arguments() -> None:
    one, two = given(), given()
    pending, feeds = take_inputs(PendingFunction(pulls_many, (one, [1]), {"named": two}))
    assert pending.args == (InputMark(0), [1])
    assert pending.kwargs == {"named": InputMark(1)}
    assert feeds == [one, two]


@pytest.mark.parametrize(
    ("hint", "is_pulled"),
    [
        (collections.abc.Iterator[int], True),
        (typing.Iterator[int], True),
        (typing.Iterable[int] | None, True),
        (collections.abc.Iterator[int] | None, True),
        (collections.abc.Generator, True),
        ("collections.abc.Iterator[Unknown]", True),
        ("None | Iterable[Unknown]", True),
        (list[int], False),
        (collections.abc.Sequence[int], False),
        ("list[Iterator[Unknown]]", False),
        ("IteratorLike", False),
        (Any, False),
    ],
)
def test_annotations_that_mean_an_iterator(hint: Any, is_pulled: bool) -> None:
    def function(items: Any) -> None: ...

    function.__annotations__["items"] = hint
    assert (take_inputs(PendingFunction(function, (given(),)))[1] != []) is is_pulled


def test_annotation_that_cannot_be_evaluated_is_read_by_its_name() -> None:
    one, two = given(), given()
    pending, feeds = take_inputs(PendingFunction(evaluates_nothing, (one, two)))
    assert pending.args == (InputMark(0), two)
    assert feeds == [one]


def test_generator_is_known_by_its_function() -> None:
    async def awaited() -> Any:
        yield 1

    assert yields(given)
    assert yields(awaited)
    assert not yields(len)
    with pytest.raises(TypeError, match=r"given\(\) is a generator, and a broadcast takes calls that return"):
        refuse_items(PendingFunction(given), "a broadcast")


class Talk:
    """A flow, and what it says."""

    def __init__(self, *feeds: Iterator[Any], stream: bool = True) -> None:
        self.said: list[Frame] = []
        self.flow = CallFlow("task", list(feeds), stream=stream)
        self.flow.begin(0, self.said.append)

    def item(self, seq: int, value: Any = None, number: int = 1, **more: bool) -> None:
        header = {"index": 0, "number": number, "seq": seq, **more}
        body = b"" if more.get("end") else dumps(value)
        self.flow.receive(Frame(FrameKind.ITEM, header, body))

    def ends(self, value: Any = None) -> None:
        self.flow.ended(Outcome(0, True, dumps(value)))


def test_items_are_read_in_order_and_the_value_at_the_end() -> None:
    talk = Talk()
    for seq in (0, 1, 1, 0, 2):  # some come twice
        talk.item(seq, seq)
    talk.item(3, end=True)
    talk.ends("value")
    found = []

    def read() -> Iterator[int]:
        found.append((yield from talk.flow.items()))

    assert list(read()) == [0, 1, 2]
    assert found == ["value"]
    assert talk.said[-1].header == {"index": 0, "number": 1, "taken": 4}


def test_end_without_the_last_item_is_an_error_and_no_short_list() -> None:
    talk = Talk()
    talk.item(0, "zero")
    talk.ends()
    items = talk.flow.items()
    assert next(items) == "zero"
    with pytest.raises(GatewayError, match="some of its items did not arrive"):
        next(items)


def test_item_that_cannot_be_read_here_says_so() -> None:
    talk = Talk()
    header = {"index": 0, "number": 1, "seq": 0}
    talk.flow.receive(Frame(FrameKind.ITEM, header, b"\x80\x05cno_such_module\nX\n."))
    with pytest.raises(EnvironmentMismatch, match="task task: an item arrived but cannot be read here"):
        next(talk.flow.items())


def test_items_that_are_here_are_read_before_what_ended_the_call() -> None:
    talk = Talk()
    talk.item(0, "zero")
    talk.flow.ended(TaskCancelled("it was cancelled"))
    items = talk.flow.items()
    assert next(items) == "zero"
    with pytest.raises(TaskCancelled):
        next(items)


def test_later_attempt_takes_the_place_of_one_that_gave_nothing() -> None:
    talk = Talk()
    talk.flow.receive(Frame(FrameKind.NEED, {"index": 0, "number": 1, "input": 0, "taken": 0}))
    talk.item(0, "again", number=2)
    talk.item(0, "late", number=1)
    assert next(talk.flow.items()) == "again"


def test_later_attempt_is_an_error_once_items_were_delivered() -> None:
    talk = Talk()
    talk.item(0, "zero")
    talk.item(0, "zero", number=2)
    items = talk.flow.items()
    assert next(items) == "zero"
    with pytest.raises(NodeLost, match="begun again"):
        next(items)
    assert talk.said[-1].kind is FrameKind.CANCEL
    assert talk.flow.traits()["begun"]


def test_new_connection_begins_with_what_was_taken_and_whether_anybody_reads() -> None:
    talk = Talk()
    assert talk.flow.again().header == {"index": 0, "taken": 0, "replay": True}
    talk.item(0, "zero")
    next(talk.flow.items())
    assert talk.flow.again().header == {"index": 0, "number": 1, "taken": 1, "replay": True}
    talk.flow.close()
    assert talk.said[-1].header["close"]
    assert talk.flow.again().header["close"]


def test_reader_that_forgets_its_iterator_has_left() -> None:
    talk = Talk()
    soon: list[Callable[[], None]] = []
    items: ItemIterator[Any] = ItemIterator(talk.flow, talk.flow.close, soon.append)
    del items
    soon[0]()
    assert talk.said[-1].header["close"]


class Fed:
    """A feed, and what it says."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.said: list[Frame] = []
        self.feed = Feed(0, items, self.said.append)

    def over(self) -> list[Frame]:
        """Wait for its thread; what was said."""
        thread = self.feed._thread
        assert thread is not None
        thread.join(30)
        assert not thread.is_alive()
        return self.said


def test_iterator_begins_when_it_is_needed_and_is_closed_at_its_end() -> None:
    log: list[object] = []

    def items() -> Iterator[int]:
        try:
            log.append("begun")
            yield 1
        finally:
            log.append("closed")

    fed = Fed(items())
    assert not fed.feed.begun
    assert log == []
    fed.feed.need(0, replay=False)
    item, end = fed.over()
    assert (item.header, loads(item.body)) == ({"input": 0, "seq": 0}, 1)
    assert end.header["end"]
    assert log == ["begun", "closed"]


def test_what_was_not_taken_of_an_iterator_is_said_again() -> None:
    fed = Fed(iter("abc"))
    fed.feed.need(0, replay=False)
    fed.over()
    fed.said.clear()
    fed.feed.need(2, replay=True)
    assert [frame.header["seq"] for frame in fed.said] == [2, 3]


def test_iterator_is_closed_when_its_call_has_ended_in_the_middle() -> None:
    closed: list[bool] = []

    begun = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                begun.set()
                yield 1
        finally:
            closed.append(True)

    fed = Fed(endless())
    fed.feed.need(0, replay=False)
    assert begun.wait(30)
    fed.feed.close()
    fed.over()
    assert closed == [True]


def test_what_an_iterator_raises_goes_out_as_its_end() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    fed = Fed(broken())
    fed.feed.need(0, replay=False)
    end = fed.over()[-1]
    assert end.header["end"]
    assert isinstance(loads_error(end.body), LookupError)


@pytest.mark.parametrize("wrapped", [False, True])
def test_exception_that_cannot_be_pickled_goes_out_in_words_and_not_as_a_plain_end(wrapped: bool) -> None:
    """Such as an HTTPError, which holds its connection."""
    held: Exception = LookupError(threading.Lock())
    problem = ExceptionGroup("page 4", [held]) if wrapped else held

    def broken() -> Iterator[int]:
        yield 1
        raise problem

    fed = Fed(broken())
    fed.feed.need(0, replay=False)
    end = fed.over()[-1]
    error = ErrorInfo.from_json(end.header["error"])
    assert (end.header["end"], end.body) == (True, b"")
    assert (error.type, error.message) == (type(problem).__qualname__, str(problem))


def test_exception_larger_than_a_frame_goes_out_in_pieces() -> None:
    def broken() -> Iterator[int]:
        raise LookupError(bytes(2 * CHUNK))
        yield

    fed = Fed(broken())
    fed.feed.need(0, replay=False)
    frames = fed.over()
    assert all(len(frame.body) <= CHUNK for frame in frames)
    assert [frame.header.get("end", False) for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert isinstance(loads_error(b"".join(frame.body for frame in frames)), LookupError)
