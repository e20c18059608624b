"""JSON Schema of a pydantic model, made structural for the API server.

pydantic writes `$ref`, `anyOf` with null, titles and full defaults; a CustomResourceDefinition takes none of
these. An optional field is simply absent, and whatever can be long has a bound, without which the server
refuses CEL rules as too costly. The default of an object states its fields: the server checks a default
against the object's rules before it fills in the defaults further down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

type Schema = dict[str, Any]

#: An RFC 3339 time with nanoseconds and an offset has 35 characters.
TIME_LENGTH = 64
_INT32 = 2**31 - 1
_RULES = "x-kubernetes-validations"
_DROPPED = ("title", "$defs", "additionalProperties")


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model: no references, no unions, every type stated once."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _node(schema, schema.get("$defs", {}))


def without_defaults(schema: Schema) -> Schema:
    """The schema without defaults and nested rules, for objects that are written once and never change.

    A default that a later version adds would otherwise differ from the stored object.
    """
    plain = {key: value for key, value in schema.items() if key not in ("default", _RULES)}
    for key in ("items", "additionalProperties"):
        if isinstance(plain.get(key), dict):
            plain[key] = without_defaults(plain[key])
    if "properties" in plain:
        plain["properties"] = {name: without_defaults(each) for name, each in plain["properties"].items()}
    return plain


def _node(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _flat(raw, definitions)
    made: Schema = {key: value for key, value in node.items() if key not in _DROPPED}
    if "description" in made:
        made["description"] = " ".join(str(made["description"]).split())
    if "default" in made and made["default"] in (None, [], {}):
        del made["default"]
    match made.get("type"):
        case "object":
            _object(made, node, definitions)
        case "array":
            made["items"] = _node(node["items"], definitions)
        case "integer":
            made["format"] = "int32" if made.get("maximum", _INT32 + 1) <= _INT32 else "int64"
        case "string" if made.get("format") == "date-time":
            made["maxLength"] = TIME_LENGTH
        case _:
            pass
    made.pop("const", None)
    return made


def _object(made: Schema, node: Schema, definitions: dict[str, Schema]) -> None:
    """Fill in the properties of an object, or the values of a map."""
    if "properties" in node:
        made["properties"] = {name: _node(each, definitions) for name, each in node["properties"].items()}
        if "default" in made:
            made["default"] = _dense(made["default"])
    else:
        made["additionalProperties"] = _node(node["additionalProperties"], definitions)


def _dense(value: Any) -> Any:
    """A default without nulls and without what is empty: the defaults further down fill these."""
    if not isinstance(value, dict):
        return value
    kept = {key: _dense(each) for key, each in value.items()}
    return {key: each for key, each in kept.items() if each not in (None, [], {})}


def _flat(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    """Resolve a reference or an optional into one node; what stands beside it wins, and rules add up."""
    beside = {key: value for key, value in raw.items() if key not in ("$ref", "anyOf", "allOf")}
    match raw:
        case {"$ref": reference}:
            below = _flat(definitions[reference.rsplit("/", 1)[-1]], definitions)
        case {"anyOf": options} | {"allOf": options}:
            real = [each for each in options if each.get("type") != "null"]
            if len(real) != 1:
                raise ValueError(f"a structural schema has no unions: {options}")
            below = _flat(real[0], definitions)
        case _:
            return raw
    rules = [*below.get(_RULES, []), *beside.get(_RULES, [])]
    return {**below, **beside, **({_RULES: rules} if rules else {})}
