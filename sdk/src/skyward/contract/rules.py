"""Small vocabulary for what JSON Schema alone cannot say to the API server.

Each function returns keys for a field's or model's `json_schema_extra`: CEL rules whose message says which
field is wrong and what is allowed, and the list types that server-side apply needs.
"""

from __future__ import annotations

from typing import Any

type Extension = dict[str, Any]


def rule(
    expression: str,
    message: str,
    *,
    says: str | None = None,
    field: str | None = None,
    optional_old: bool = False,
) -> Extension:
    """One CEL rule.

    `says` is a CEL expression for a message with the offending value; `message` stands in where it fails.
    `field` is the path below the object that the error points at. `optional_old` lets the rule run on create,
    with `oldSelf` as an optional.
    """
    made: Extension = {"rule": expression, "message": message}
    if says is not None:
        made["messageExpression"] = says
    if field is not None:
        made["fieldPath"] = field
    if optional_old:
        made["optionalOldSelf"] = True
    return made


def validations(*rules: Extension) -> Extension:
    """The rules as the extension of a schema node."""
    return {"x-kubernetes-validations": list(rules)}


def immutable(what: str, instead: str) -> Extension:
    """Refuse any change of the value; `instead` tells what to do."""
    return validations(rule("self == oldSelf", f"{what} cannot be changed after creation: {instead}"))


def list_map(*keys: str) -> Extension:
    """A list whose items are told apart by `keys`, so that owners can manage single entries."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET: Extension = {"x-kubernetes-list-type": "set"}
"""A list of distinct values."""
