"""A status is cut to its schema and otherwise left alone."""

from typing import Any

import pytest

from skyward.contract.fit import fit_status
from skyward.contract.names import NODE, POOL, TASK, Kind


@pytest.mark.parametrize("kind", [POOL, NODE, TASK])
def test_what_fits_is_left_alone(kind: Kind) -> None:
    status: dict[str, Any] = {
        "phase": "Ready",
        "reason": None,
        "somethingNew": {"x": "y" * 9999},
        "conditions": [],
    }
    assert fit_status(kind, status) == status


def test_long_texts_are_cut_at_the_end_that_tells_less() -> None:
    fitted = fit_status(TASK, {"message": "m" * 9999, "error": {"traceback": "t" * 99_999 + "last"}})
    assert len(fitted["message"]) == 4096
    assert fitted["message"].endswith("…")
    assert len(fitted["error"]["traceback"]) == 32_768
    assert fitted["error"]["traceback"].endswith("last")


def test_texts_inside_lists_are_cut_and_lists_too() -> None:
    offers = [{"message": "x" * 5000, "region": "r" * 100}] * 50
    fitted = fit_status(POOL, {"offersTried": offers})["offersTried"]
    assert len(fitted) == 32
    assert {len(each["message"]) for each in fitted} == {4096}
    assert {len(each["region"]) for each in fitted} == {64}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (TASK, {"result": {"package": "A" * 100_000}}),
        (TASK, {"succeededIndexes": "1,3" * 200_000}),
        (NODE, {"launch": {"token": "t" * 100}, "providerId": "i" * 300}),
    ],
)
def test_what_a_cut_would_make_wrong_is_never_cut(kind: Kind, status: dict[str, Any]) -> None:
    assert fit_status(kind, status) == status


def test_free_json_is_not_touched() -> None:
    status = {"result": {"value": {"message": "x" * 9999, "list": list(range(99))}}}
    assert fit_status(TASK, status) == status
