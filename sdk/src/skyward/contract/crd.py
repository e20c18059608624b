"""The CustomResourceDefinitions, made from the models.

`crds/*.yaml` and the chart's copies are written from here and compared in a test; the embedded control plane
applies these same documents. What `kubectl get` shows stands here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyward.contract.names import (
    ANNOTATION_SCHEMA,
    CATEGORY,
    GROUP,
    NODE,
    POOL,
    SCHEMA_VERSION,
    TASK,
    VERSION,
    Kind,
)
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward.contract.schema import Schema, structural, without_defaults
from skyward.contract.task import Task

if TYPE_CHECKING:
    from skyward.contract.meta import Resource


def _column(name: str, path: str, description: str, *, type_: str = "string", wide: bool = False) -> Schema:
    column: Schema = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return {**column, "priority": 1} if wide else column


_REASON = _column("Reason", ".status.reason", "Why it is in its phase.")
_MESSAGE = _column("Message", ".status.message", "The reason in a sentence, with the next step.", wide=True)
_AGE = _column("Age", ".metadata.creationTimestamp", "Time since its creation.", type_="date")

_COLUMNS: dict[Kind, list[Schema]] = {
    POOL: [
        _column("Phase", ".status.phase", "Where the pool stands."),
        _column("Nodes", ".status.display.nodes", "Ready and wanted nodes."),
        _column("Hardware", ".status.display.hardware", "Hardware of the nodes."),
        _column("$/h", ".status.display.hourly", "Price of all nodes in US dollars per hour."),
        _column("Spent", ".status.display.spent", "Cost so far, and the budget, in US dollars."),
        _column("Reason", ".status.reason", "Why the pool is in its phase.", wide=True),
        _MESSAGE,
        _AGE,
    ],
    NODE: [
        _column("Pool", ".spec.poolRef.name", "Pool that the node belongs to."),
        _column("Rank", ".spec.rank", "Place of the node in its pool; 0 is the head.", type_="integer"),
        _column("Phase", ".status.phase", "Where the node stands."),
        _column("Provider", ".status.launch.offer.provider", "Provider of the machine."),
        _column("Type", ".status.launch.offer.instanceType", "Instance type of the machine."),
        _column("$/h", ".status.display.hourly", "Price of the machine in US dollars per hour."),
        _column("Address", ".status.display.address", "Address as ssh takes it.", wide=True),
        _column("Region", ".status.launch.offer.region", "Region of the machine.", wide=True),
        _column("Market", ".status.launch.offer.market", "Market of the machine.", wide=True),
        _column("Reason", ".status.reason", "Why the node is in its phase.", wide=True),
        _MESSAGE,
        _AGE,
    ],
    TASK: [
        _column("Pool", ".spec.poolRef.name", "Pool that runs the task."),
        _column("Phase", ".status.phase", "Where the task stands."),
        _column("Progress", ".status.display.progress", "Finished and all calls."),
        _column("Node", ".status.node", "Node that runs or ran the task."),
        _column("Duration", ".status.display.duration", "Time from the first start to the end."),
        _REASON,
        _column("Cost", ".status.cost.total", "Cost of its calls in US dollars.", wide=True),
        _column("Attempts", ".status.attempts.total", "Number of attempts.", type_="integer", wide=True),
        _MESSAGE,
        _AGE,
    ],
}
_SELECTABLE: dict[Kind, list[str]] = {
    POOL: [],
    NODE: [".spec.poolRef.name", ".status.phase"],
    TASK: [".spec.poolRef.name", ".status.phase"],
}
_SCALE: Schema = {
    "specReplicasPath": ".spec.nodes.desired",
    "statusReplicasPath": ".status.nodes.total",
    "labelSelectorPath": ".status.selector",
}


def crd_documents() -> list[dict[str, Any]]:
    """The three CustomResourceDefinitions, ready to be applied."""
    return [_definition(POOL, ComputePool), _definition(NODE, ComputeNode), _definition(TASK, Task)]


def crd_filename(document: dict[str, Any]) -> str:
    """File that holds a definition, as controller-gen would call it."""
    return f"{GROUP}_{document['spec']['names']['plural']}.yaml"


def _definition(kind: Kind, model: type[Resource]) -> dict[str, Any]:
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, **({"scale": _SCALE} if kind is POOL else {})},
        "additionalPrinterColumns": _COLUMNS[kind],
        "schema": {"openAPIV3Schema": _root(kind, model)},
    }
    if _SELECTABLE[kind]:
        version["selectableFields"] = [{"jsonPath": path} for path in _SELECTABLE[kind]]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "annotations": {ANNOTATION_SCHEMA: SCHEMA_VERSION}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _root(kind: Kind, model: type[Resource]) -> Schema:
    """The whole object: the API server owns `metadata`, and a status is never defaulted."""
    schema = structural(model)
    parts = schema["properties"]
    spec = parts["spec"]
    if kind is NODE:
        spec = {**without_defaults(spec), "x-kubernetes-validations": spec["x-kubernetes-validations"]}
    return {
        "type": "object",
        "description": schema["description"],
        "required": ["spec"],
        "x-kubernetes-validations": schema["x-kubernetes-validations"],
        "properties": {
            "apiVersion": {
                "type": "string",
                "maxLength": 253,
                "description": f"Version of the schema that this object is written in: {kind.api_version}.",
            },
            "kind": {"type": "string", "maxLength": 63, "description": f"Type of this object: {kind.kind}."},
            # the API server owns metadata and allows only a bound of the name here, which CEL needs
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": spec,
            "status": without_defaults(parts["status"]),
        },
    }
