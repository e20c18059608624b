"""The models: JSON out, JSON in, and what they refuse or forgive."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from skyward.contract.meta import MESSAGE_LIMIT, Condition, EnvVar, Resource, clip, condition
from skyward.contract.names import API_VERSION, NODE, POOL, TASK, Kind
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool, ComputePoolStatus, OfferTried
from skyward.contract.task import Task, TaskError, TaskStatus

POOL_DOCUMENT = {
    "apiVersion": "skyward.dev/v1alpha1",
    "kind": "ComputePool",
    "metadata": {"name": "gpus", "labels": {"a": "b"}},
    "spec": {
        "candidates": [{"name": "h100", "provider": "aws", "accelerator": {"name": "H100", "count": "8"}}]
    },
}
TASK_DOCUMENT = {
    "apiVersion": "skyward.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "factorial"},
    "spec": {
        "poolRef": {"name": "gpus"},
        "function": {"entrypoint": "math:factorial", "args": [5, None, {"a": None}], "kwargs": {"b": None}},
    },
}


@pytest.mark.parametrize(("model", "kind"), [(ComputePool, POOL), (ComputeNode, NODE), (Task, TASK)])
def test_a_model_carries_the_names_of_its_kind(model: type[Resource], kind: Kind) -> None:
    assert model.model_fields["kind"].default == kind.kind
    assert model.model_fields["api_version"].default == API_VERSION == kind.api_version


@pytest.mark.parametrize(("model", "document"), [(ComputePool, POOL_DOCUMENT), (Task, TASK_DOCUMENT)])
def test_a_document_comes_back_as_it_was_when_defaults_are_left_out(
    model: type[Resource], document: dict[str, object]
) -> None:
    assert model.read(document).document(exclude_defaults=True) == document


def test_a_document_keeps_null_arguments() -> None:
    function = Task.read(TASK_DOCUMENT).document()["spec"]["function"]
    assert function["args"] == [5, None, {"a": None}]
    assert function["kwargs"] == {"b": None}


def test_defaults_are_those_of_the_seeds() -> None:
    spec = ComputePool.read(POOL_DOCUMENT).spec
    assert spec.candidates[0].market == "spot-if-available"
    assert (spec.nodes.desired, spec.nodes.min, spec.nodes.max) == (1, None, None)
    assert (spec.lifetime.ttl_seconds, spec.lifetime.idle_seconds) == (600, 60)
    assert Task.read(TASK_DOCUMENT).spec.retry.on_interruption == 3


def test_units_keep_their_spelling_in_json() -> None:
    candidate = {"name": "a", "provider": "aws", "memoryGiB": 64, "diskGiB": 200}
    document = {**POOL_DOCUMENT, "spec": {"candidates": [candidate]}}
    made = ComputePool.read(document).document(exclude_defaults=True)
    assert made["spec"]["candidates"] == [candidate]


def test_building_refuses_an_unknown_field_and_reading_ignores_it() -> None:
    with pytest.raises(ValidationError, match="sise"):
        EnvVar.model_validate({"name": "A", "value": "b", "sise": 1})
    assert EnvVar.read({"name": "A", "value": "b", "sise": 1}) == EnvVar(name="A", value="b")


def test_reading_forgives_the_words_of_a_newer_operator() -> None:
    status = TaskStatus.read({"phase": "Migrating", "reason": "NotYetInvented", "somethingNew": {"x": 1}})
    assert status.phase == "Migrating"


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ("2.50", "2.50"),
        ("1E+2", "100"),
        ("0.12345678", "0.123457"),
        (0, "0"),
        ("3.9000000000", "3.9"),
    ],
)
def test_money_is_written_as_a_plain_decimal_string(price: str, text: str) -> None:
    written = OfferTried(hourly_price=Decimal(price)).document()["hourlyPrice"]
    assert Decimal(written) == Decimal(text)
    assert "E" not in written
    assert len(written.partition(".")[2]) <= 6


@pytest.mark.parametrize("price", ["-1", "1000000000", "NaN", "much"])
def test_money_refuses_what_is_no_price(price: str) -> None:
    with pytest.raises(ValidationError):
        OfferTried.model_validate({"hourlyPrice": price})


def test_texts_of_a_status_are_cut_instead_of_refused() -> None:
    status = ComputePoolStatus(message="x" * 10_000)
    assert status.message is not None
    assert len(status.message) == MESSAGE_LIMIT
    error = TaskError(traceback="head" + "x" * 40_000 + "tail")
    assert error.traceback is not None
    assert error.traceback.endswith("tail")


def test_clip_leaves_short_text_alone() -> None:
    assert clip("short") == "short"
    assert clip("abcdef", 3) == "ab…"
    assert clip("abcdef", 3, keep="tail") == "…ef"


def test_condition_is_found_by_type() -> None:
    ready = Condition(type="Ready", status="True")
    assert condition((Condition(type="Stalled", status="False"), ready), "Ready") is ready
    assert condition((ready,), "Drained") is None


def test_metadata_leaves_out_what_is_not_named() -> None:
    document = {**POOL_DOCUMENT, "metadata": {"name": "gpus", "managedFields": [{"manager": "kubectl"}]}}
    assert ComputePool.read(document).document()["metadata"] == {"name": "gpus"}
    assert ComputePool.model_validate(document).metadata.name == "gpus"
