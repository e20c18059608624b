"""The generated definitions: equal to the files, structural, bounded, described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from skyward.contract.__main__ import main, render
from skyward.contract.crd import crd_documents, crd_filename
from skyward.contract.names import ANNOTATION_SCHEMA, SCHEMA_VERSION
from skyward.contract.schema import structural

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = {document["spec"]["names"]["plural"]: document for document in crd_documents()}
FREE = "x-kubernetes-preserve-unknown-fields"

type Node = dict[str, Any]


def schema_of(plural: str) -> Node:
    root: Node = DOCUMENTS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Every node of a schema with its path; not metadata, which the API server owns."""
    yield path, node
    for name, below in node.get("properties", {}).items():
        if f"{path}.{name}" not in ("computepools.metadata", "computenodes.metadata", "tasks.metadata"):
            yield from walk(below, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from walk(node["additionalProperties"], f"{path}{{}}")


NODES = {path: node for plural in DOCUMENTS for path, node in walk(schema_of(plural), plural)}


@pytest.mark.parametrize("plural", DOCUMENTS)
def test_the_files_are_what_the_models_say(plural: str) -> None:
    path = REPOSITORY / "crds" / crd_filename(DOCUMENTS[plural])
    assert path.read_text(encoding="utf-8") == render(DOCUMENTS[plural]), "run `make crds`"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == DOCUMENTS[plural]


def test_no_other_files_lie_beside_them() -> None:
    names = {path.name for path in (REPOSITORY / "crds").iterdir()}
    assert names == {crd_filename(document) for document in DOCUMENTS.values()}


def test_the_command_writes_every_file(tmp_path: Path) -> None:
    assert main([str(tmp_path / "made")]) == 0
    assert len(list((tmp_path / "made").iterdir())) == len(DOCUMENTS)


def test_every_string_list_map_and_number_is_bounded() -> None:
    unbounded = [
        path
        for path, node in NODES.items()
        if (node.get("type") == "string" and "maxLength" not in node and "enum" not in node)
        or (node.get("type") == "array" and "maxItems" not in node)
        or (node.get("type") == "object" and "additionalProperties" in node and "maxProperties" not in node)
        or (node.get("type") == "integer" and not {"minimum", "maximum"} <= node.keys())
    ]
    assert unbounded == []


def test_every_property_is_described_in_a_sentence() -> None:
    properties = [(path, node) for path, node in NODES.items() if not path.endswith(("[]", "{}"))]
    assert len(properties) > 200
    poor = [
        path
        for path, node in properties
        if len(node.get("description", "").split()) < 3 or not node["description"].endswith(".")
    ]
    assert poor == []


def test_durations_and_sizes_name_their_units() -> None:
    units = {"Seconds": "seconds", "GiB": "GiB"}
    silent = [
        path
        for path, node in NODES.items()
        for suffix, unit in units.items()
        if path.endswith(suffix) and unit.lower() not in node["description"].lower()
    ]
    assert silent == []


def test_schemas_are_structural() -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "const", "title", "$defs"}
    assert [path for path, node in NODES.items() if forbidden & node.keys()] == []
    assert [path for path, node in NODES.items() if "type" not in node and not node.get(FREE)] == []
    assert [
        path for path, node in NODES.items() if "properties" in node and "additionalProperties" in node
    ] == []


def test_free_json_stands_only_where_people_need_it() -> None:
    free = {path for path, node in NODES.items() if node.get(FREE)}
    assert free == {
        "tasks.spec.function.args[]",
        "tasks.spec.function.kwargs{}",
        "tasks.spec.function.items[]",
        "tasks.status.result.value",
        "computepools.spec.plugins[].parameters{}",
    }


def test_no_status_has_defaults_or_rules_or_required_fields() -> None:
    keys = {"type"}  # of a condition, which is the key of the list
    for path, node in NODES.items():
        if ".status." in path:
            assert "default" not in node, path
            assert "x-kubernetes-validations" not in node, path
            assert set(node.get("required", [])) <= {*keys, "status", "digest", "sizeBytes"}, path


def test_the_spec_of_a_node_has_no_defaults() -> None:
    assert [
        path for path, node in NODES.items() if path.startswith("computenodes.") and "default" in node
    ] == []


def test_every_rule_says_what_is_allowed() -> None:
    rules = [rule for node in NODES.values() for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) > 25
    assert all(len(rule["message"].split()) >= 5 for rule in rules)


def test_lists_of_named_things_are_maps() -> None:
    keyed = {
        path: node["x-kubernetes-list-map-keys"]
        for path, node in NODES.items()
        if "x-kubernetes-list-map-keys" in node
    }
    assert keyed["computepools.spec.candidates"] == ["name"]
    assert keyed["computepools.status.conditions"] == ["type"]
    assert keyed["tasks.spec.command.env"] == ["name"]
    for path, keys in keyed.items():
        required = NODES[f"{path}[]"]["required"]
        assert set(keys) <= set(required), path


@pytest.mark.parametrize("plural", DOCUMENTS)
def test_a_definition_serves_kubectl(plural: str) -> None:
    document = DOCUMENTS[plural]
    names = document["spec"]["names"]
    version = document["spec"]["versions"][0]
    assert document["metadata"]["annotations"][ANNOTATION_SCHEMA] == SCHEMA_VERSION
    assert names["categories"] == ["skyward"]
    assert names["shortNames"] == {"computepools": ["skp"], "computenodes": ["skn"], "tasks": ["skt"]}[plural]
    assert "status" in version["subresources"]
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"


def test_printer_columns_and_selectors_point_at_fields_that_exist() -> None:
    for plural, document in DOCUMENTS.items():
        version = document["spec"]["versions"][0]
        entries = [*version["additionalPrinterColumns"], *version.get("selectableFields", [])]
        for path in [entry["jsonPath"] for entry in entries]:
            assert path == ".metadata.creationTimestamp" or f"{plural}{path}" in NODES, path


def test_the_scale_subresource_points_at_fields_that_exist() -> None:
    scale = DOCUMENTS["computepools"]["spec"]["versions"][0]["subresources"]["scale"]
    assert all(f"computepools{path}" in NODES for path in scale.values())


def test_a_union_is_refused_when_the_schema_is_made() -> None:
    from pydantic import BaseModel

    class Either(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="no unions"):
        structural(Either)
