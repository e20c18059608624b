"""What all three kinds share: base models, object metadata, conditions, and the bounded types of the schema.

Attributes are snake_case, JSON is camelCase. A spec refuses unknown fields when Python code builds it and
ignores them when it is read from the API server (`read`), since a newer CRD may know more than this program.
A status ignores what it does not know and requires nothing: refusing a status write would lose what it says.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from skyward.contract.rules import list_map, rule, validations

MESSAGE_LIMIT = 4096
LOG_LIMIT = 16384
TRACEBACK_LIMIT = 32768
INLINE_LIMIT = 87384
"""Characters of base64 that hold 64 KiB: the most that a payload or a result may take inside an object."""
RANGES_LIMIT = 307200
"""Characters of one index-range string: the worst case of 100,000 items, as Kubernetes' Job allows."""
DAY = 86_400

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
MONEY = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"


def camel(attribute: str) -> str:
    """JSON name of an attribute; units keep their spelling (`memory_gib` is `memoryGiB`)."""
    return to_camel(attribute).replace("Gib", "GiB")


def clip(text: str, limit: int = MESSAGE_LIMIT, *, keep: Literal["head", "tail"] = "head") -> str:
    """Cut text to what a field holds; an ellipsis shows the place of the cut."""
    if len(text) <= limit:
        return text
    return text[: limit - 1] + "…" if keep == "head" else "…" + text[len(text) - limit + 1 :]


class Model(BaseModel):
    """Base of everything in a spec."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=False,
    )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Build from what the API server sent; unknown fields of a newer schema are ignored."""
        return cls.model_validate(document, extra="ignore")

    def document(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """The JSON form that is sent to the API server: camelCase, without empty optionals."""
        return self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=exclude_defaults
        )


class Observed(Model):
    """Base of everything in a status: nothing required, unknown fields ignored."""

    model_config = ConfigDict(extra="ignore")


def _decimal_text(value: Decimal) -> str:
    places = -int(value.as_tuple().exponent)
    rounded = value if places <= 6 else value.quantize(Decimal("0.000001"), ROUND_HALF_UP)
    return format(rounded, "f")


def _within(low: Decimal, high: Decimal) -> Callable[[Decimal], Decimal]:
    def check(value: Decimal) -> Decimal:
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return check


Money = Annotated[
    Decimal,
    AfterValidator(_within(Decimal(0), Decimal("999999999.999999"))),
    PlainSerializer(_decimal_text, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 16,
            "pattern": MONEY,
            **validations(
                rule(
                    rf"self.matches(r'{MONEY}')",
                    'money is a decimal string in US dollars such as "2.50", with at most 6 decimal places',
                )
            ),
        }
    ),
]
"""US dollars: `Decimal` in Python, a decimal string in JSON (never a float)."""

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
"""A DNS label: lower-case letters, digits and hyphens."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""The name of another Kubernetes object."""

Word = Annotated[str, Field(max_length=64)]
"""A phase, a reason or another short machine-readable word."""

Sha256 = Annotated[str, Field(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]

Json = Annotated[JsonValue, WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "nullable": True})]
"""Any JSON value, kept as it is."""


def clipped(limit: int, keep: Literal["head", "tail"] = "head") -> BeforeValidator:
    """Validator that cuts a text to its field's limit instead of refusing it."""
    return BeforeValidator(lambda value: clip(value, limit, keep=keep) if isinstance(value, str) else value)


Message = Annotated[str, clipped(MESSAGE_LIMIT), Field(max_length=MESSAGE_LIMIT)]
"""A sentence for people, cut to its limit."""

Log = Annotated[str, clipped(LOG_LIMIT, "tail"), Field(max_length=LOG_LIMIT)]
"""The last lines of an output, cut to their limit."""

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class OwnerReference(Model):
    """The object whose deletion deletes this one."""

    model_config = ConfigDict(extra="ignore")

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """Kubernetes object metadata; fields that are not named here are left out."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    @property
    def is_deleted(self) -> bool:
        """True once deletion was asked for, even while finalizers hold the object."""
        return self.deletion_timestamp is not None


class Resource(Model):
    """Base of the three kinds: `apiVersion`, `kind`, `metadata`, and the spec and status of each."""

    api_version: Literal["skyward.dev/v1alpha1"] = "skyward.dev/v1alpha1"
    kind: str
    metadata: ObjectMeta = ObjectMeta()

    def document(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """The JSON form that is sent to the API server: camelCase, without empty metadata and status.

        With `exclude_defaults` the spec is as short as it can be; the API server fills it again.
        """
        made = super().document(exclude_defaults=exclude_defaults)
        metadata = {
            key: value for key, value in made.get("metadata", {}).items() if value not in ("", [], {})
        }
        made = {**made, "apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
        if not any(made.get("status", {}).values()):
            made.pop("status", None)
        return {key: made[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in made}


class Condition(Observed):
    """One aspect of an object's state."""

    type: Annotated[str, Field(max_length=316)] = Field(description="Name of the condition, such as Ready.")
    status: Literal["True", "False", "Unknown"] = Field(
        description="Whether the condition holds: True, False or Unknown."
    )
    observed_generation: int | None = Field(
        None,
        ge=0,
        le=2**53,
        description=(
            "The metadata.generation that the condition was judged by; older than the object's "
            "own means stale."
        ),
    )
    last_transition_time: datetime | None = Field(
        None, description="When the status of the condition last changed, in RFC 3339."
    )
    reason: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Why the condition has its status, as one CamelCase word."
    )
    message: Message | None = Field(
        None, description="The reason in a sentence for people, with the next step."
    )


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=32, json_schema_extra=list_map("type")),
]
"""The conditions of one object, told apart by type."""


def condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of that type, or None when it was never published."""
    return next((each for each in conditions if each.type == type_), None)


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of this object.")


class PoolRef(Model):
    """A pool in the same namespace."""

    name: ObjectName = Field(description="Name of the ComputePool, in the namespace of this object.")


class EnvVar(Model):
    """One environment variable."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable: letters, digits and underscores, not beginning with a digit."
    )
    value: Annotated[str, Field(max_length=16384)] = Field(
        "",
        description=(
            "Value of the variable; anyone who may read this object can read it, so keep secrets out."
        ),
    )


class Blob(Model):
    """Bytes that are kept by the gateway, told apart by their content."""

    digest: Sha256 = Field(description="SHA-256 of the bytes, as 64 lower-case hexadecimal digits.")
    size_bytes: Annotated[int, Field(ge=0, le=2**50)] = Field(description="Length of the bytes.")
