"""What is kept of an open task's calls, and for how long."""

from __future__ import annotations

import pytest

from skyward_operator.tasks import open as open_module
from skyward_operator.tasks.open import OpenCall, OpenCalls


def test_function_is_kept_for_later_calls_after_the_last_one_ended() -> None:
    state = OpenCalls()
    state.keep_function("f", b"function")
    state.add(0, OpenCall("f", b"args"))
    state.drop(0)
    state.add(1, OpenCall("f", b"more"))
    payload = state.payload(1)
    assert payload.digest == "f"
    assert bytes(payload.function or b"") == b"function"
    assert bytes(payload.arguments or b"") == b"more"


def test_call_without_its_function_is_not_taken() -> None:
    state = OpenCalls()
    with pytest.raises(KeyError):
        state.add(0, OpenCall("f", b""))
    assert not state.calls


def test_functions_that_nobody_needs_go_first_when_room_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_module, "MOST_BYTES", 100)
    state = OpenCalls()
    state.keep_function("old", b"x" * 60)
    state.keep_function("f", b"y" * 30)
    state.add(0, OpenCall("f", b"z" * 60))
    assert state.held == 90
    with pytest.raises(KeyError):
        state.add(1, OpenCall("old", b""))


def test_more_than_is_allowed_is_refused_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_module, "MOST_BYTES", 100)
    state = OpenCalls()
    state.keep_function("f", b"y" * 30)
    with pytest.raises(ValueError, match="more bytes"):
        state.add(0, OpenCall("f", b"z" * 90))
    assert not state.calls
    state.keep_function("g", b"z" * 90)  # nothing holds the first function
    assert state.held == 90


def test_held_bytes_come_back_to_those_of_functions() -> None:
    state = OpenCalls()
    state.keep_function("f", b"1234")
    for index in range(10):
        state.add(index, OpenCall("f", b"12345678"))
    assert state.held == 84
    for index in range(10):
        state.drop(index)
        state.drop(index)
    assert state.held == 4
    assert state.unsent(()) == []
