"""Names, reasons and permissions."""

import re
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.contract import reasons
from skyward.contract.names import (
    KINDS,
    POOL_NAME_LIMIT,
    RANK_LIMIT,
    node_name,
    pool_selector,
    ssh_secret_name,
)
from skyward.contract.rbac import GATEWAY, OPERATOR, OPERATOR_RULES, USER_ROLES, Rule
from skyward.contract.reasons import NEXT_STEP, NodeReason, PoolReason, TaskPhase, TaskReason, next_step

VOCABULARIES: tuple[type[StrEnum], ...] = (PoolReason, NodeReason, TaskReason)


def test_a_node_name_is_stable_and_fits_a_label() -> None:
    name = node_name("p" * POOL_NAME_LIMIT, "uid", RANK_LIMIT, 12)
    assert name == node_name("p" * POOL_NAME_LIMIT, "uid", RANK_LIMIT, 12)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63


@given(
    st.tuples(st.uuids(), st.integers(0, RANK_LIMIT), st.integers(0, 99)),
    st.tuples(st.uuids(), st.integers(0, RANK_LIMIT), st.integers(0, 99)),
)
def test_node_names_differ_when_pool_rank_or_incarnation_differ(
    one: tuple[object, int, int], other: tuple[object, int, int]
) -> None:
    same_name = node_name("p", str(one[0]), *one[1:]) == node_name("p", str(other[0]), *other[1:])
    assert same_name == (one == other)


def test_a_secret_name_tells_pools_of_one_name_apart() -> None:
    assert ssh_secret_name("p", "uid-1") != ssh_secret_name("p", "uid-2")


def test_the_selector_names_the_pool() -> None:
    assert pool_selector("gpus") == "skyward.dev/pool=gpus"


def test_every_reason_has_a_next_step_and_no_step_is_left_over() -> None:
    words = {str(reason) for vocabulary in VOCABULARIES for reason in vocabulary}
    assert words == NEXT_STEP.keys()


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_reasons_are_camel_case_words_that_fit(vocabulary: type[StrEnum]) -> None:
    assert all(re.fullmatch(r"([A-Z][a-z]+)+", reason) and len(reason) <= 64 for reason in vocabulary)


def test_next_steps_are_sentences() -> None:
    assert all(len(step.split()) >= 4 and step.endswith(".") for step in NEXT_STEP.values())


def test_next_step_of_an_unknown_word_is_empty() -> None:
    assert next_step("NotYetInvented") == ""
    assert next_step(None) == ""


def test_final_phases_are_those_that_never_move() -> None:
    assert {phase for phase in TaskPhase if phase.is_final} == {"Succeeded", "Failed", "Cancelled"}


def test_conditions_belong_to_kinds() -> None:
    listed = {*reasons.POOL_CONDITIONS, *reasons.NODE_CONDITIONS, *reasons.TASK_CONDITIONS}
    assert listed == set(reasons.ConditionType)


def verbs(rules: list[Rule], group: str, resource: str) -> set[str]:
    return {
        verb
        for rule in rules
        if group in rule["apiGroups"] and resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_never_reads_secrets_in_bulk_or_writes_specs() -> None:
    assert verbs(OPERATOR_RULES, "", "secrets").isdisjoint({"list", "watch", "update", "*"})
    for kind in KINDS:
        assert "update" not in verbs(OPERATOR_RULES, kind.group, kind.plural)
        assert verbs(OPERATOR_RULES, kind.group, f"{kind.plural}/status") == {"get", "patch"}


def test_the_operator_creates_nodes_only() -> None:
    created = [kind.kind for kind in KINDS if "create" in verbs(OPERATOR_RULES, kind.group, kind.plural)]
    assert created == ["ComputeNode"]


def test_no_role_has_wildcards() -> None:
    for role in (*USER_ROLES, GATEWAY, OPERATOR):
        for rule in role.document()["rules"]:
            assert all("*" not in values for values in rule.values()), role.name


def test_people_never_write_nodes_or_status() -> None:
    for role in USER_ROLES:
        assert verbs(role.rules, "skyward.dev", "computenodes").isdisjoint({"create", "update", "patch"})
        assert not any("/status" in resource for rule in role.rules for resource in rule["resources"])
