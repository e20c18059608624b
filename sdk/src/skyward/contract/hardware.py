"""What a machine has to be: one candidate of a pool."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, WithJsonSchema

from skyward.contract.meta import Model, Money, Name, SecretRef
from skyward.contract.rules import LIST_SET, immutable, rule, validations

_COUNT = r"^([1-9][0-9]{0,2}(\.[0-9]{1,2})?|0\.(0[1-9]|[1-9][0-9]?))$"

AcceleratorCount = Annotated[
    Decimal,
    Field(gt=0, lt=1000),
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 6,
            "pattern": _COUNT,
            **validations(
                rule(
                    rf"self.matches(r'{_COUNT}')",
                    'count is a decimal string above 0 and below 1000, such as "8" or "0.5"',
                )
            ),
        }
    ),
]

Market = Literal["spot-if-available", "spot", "on-demand", "cheapest"]
Architecture = Literal["x86_64", "arm64"]

_Place = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_InstanceType = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/:-]*$")
]


class Accelerator(Model):
    """A kind of GPU or other accelerator, and how many of it one node has."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")] = (
        Field(description="Name of the accelerator, such as H100, A100, L4 or MI300X.")
    )
    count: AcceleratorCount = Field(
        Decimal(1),
        description=(
            'Number of accelerators in each node, as a decimal string such as "8"; fractions '
            "where a provider offers them."
        ),
    )
    memory_gib: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Least memory of each accelerator in GiB, such as 80. Unset: any."
    )
    form_factor: Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        None, description="How the accelerator is built in, such as SXM or PCIe. Unset: any."
    )
    mig: Annotated[str, Field(max_length=32, pattern=r"^[1-9]g\.[1-9][0-9]*gb$")] | None = Field(
        None, description="MIG profile that each GPU is divided into, such as 3g.40gb. Unset: undivided."
    )


class Candidate(Model):
    """One kind of machine that will do."""

    name: Name = Field(
        description="Name of this entry, unique within the pool: lower-case letters, digits and hyphens."
    )
    provider: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(/[a-z0-9]([a-z0-9-]*[a-z0-9])?)?$",
            json_schema_extra=immutable(
                "provider of a candidate", "add a candidate with another name and remove this one"
            ),
        ),
    ] = Field(description="Provider of the machine, such as aws, runpod or local.")
    credentials_ref: SecretRef | None = Field(
        None,
        description=(
            "Secret with the provider's credentials. Unset: the operator's own identity, where "
            "the provider has one."
        ),
    )
    accelerator: Accelerator | None = Field(
        None, description="GPU or other accelerator that each node has. Unset: none."
    )
    instance_types: Annotated[tuple[_InstanceType, ...], Field(max_length=64, json_schema_extra=LIST_SET)] = (
        Field(
            (),
            description=(
                "Instance types that are allowed, by the provider's names, at most 64. Empty: any that fits."
            ),
        )
    )
    regions: Annotated[tuple[_Place, ...], Field(max_length=64, json_schema_extra=LIST_SET)] = Field(
        (), description="Regions that are allowed, by the provider's names, at most 64. Empty: any."
    )
    vcpus: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Least number of virtual processors of each node, 1 to 4096."
    )
    memory_gib: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        None, description="Least main memory of each node in GiB, 1 to 65536."
    )
    disk_gib: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        None, description="Least disk of each node in GiB, 1 to 65536."
    )
    architecture: Architecture | None = Field(
        None, description="Instruction set of the processors: x86_64 or arm64. Unset: any."
    )
    market: Market = Field(
        "spot-if-available",
        description=(
            "spot-if-available takes spot and falls back to on-demand, spot and on-demand take "
            "only that, cheapest compares prices."
        ),
    )
    max_hourly_price: Money | None = Field(
        None,
        description='Most that one node may cost per hour in US dollars, as a decimal string such as "4.00".',
    )
    parameters: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)] = Field(
        {}, description="Further options by name, at most 32; the provider's documentation lists them."
    )
