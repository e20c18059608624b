"""What a task runs: pickled calls, a Python function with JSON arguments, or a command.

Exactly one of them; pickled bytes pass through unopened.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.image import PythonVersion
from skyward.contract.meta import (
    INLINE_LIMIT,
    Blob,
    EnvVar,
    Json,
    Model,
)
from skyward.contract.rules import list_map, rule, validations

CALLS_LIMIT = 1_000_000
ITEMS_LIMIT = 10_000

_ENTRYPOINT = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)


class Calls(Model):
    """Pickled calls, as the Python client sends them."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "[has(self.package), has(self.blob), has(self.open)].exists_one(given, given)",
                "calls needs exactly one of package (at most 64 KiB, inside the task),"
                " blob (uploaded to the gateway) and open (calls come while it runs)",
            ),
            rule(
                "!has(self.open) || self.open",
                "calls.open is true or left out: calls that are not open have a package or a blob",
                field=".open",
            ),
            rule(
                "!has(self.open) || self.count == 1",
                "calls.count is not for open calls, which are counted in the status: leave it out",
                field=".count",
            ),
        )
    )

    python: PythonVersion = Field(
        "3.13", description="Python that pickled the calls, as major.minor; the node's must be the same."
    )
    count: Annotated[int, Field(ge=1, le=CALLS_LIMIT)] = Field(
        1, description="Number of calls in the package, 1 to 1000000."
    )
    # a pattern, or the format byte, costs the API server 9 ms for 64 KiB; the length tells most mistakes
    package: (
        Annotated[
            str,
            Field(
                min_length=4,
                max_length=INLINE_LIMIT,
                json_schema_extra=validations(
                    rule("self.size() % 4 == 0", "package must be base64, whose length is a multiple of 4")
                ),
            ),
        ]
        | None
    ) = Field(
        None, description="The package of calls in base64, at most 87384 characters, which hold 64 KiB."
    )
    blob: Blob | None = Field(
        None,
        description=(
            "The package of calls when it is larger: the task waits until the gateway has these bytes."
        ),
    )
    open: Literal[True] | None = Field(
        None,
        description=(
            "True for calls that come through the gateway while the task runs, from a client that stays "
            "connected; without it for 60 seconds the task is cancelled."
        ),
    )


class Function(Model):
    """A Python function with JSON arguments."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.entrypoint) != has(self.source)",
                "function needs exactly one of entrypoint (such as math:factorial) and source (Python text)",
            ),
            rule(
                "!has(self.source) || has(self.name)",
                "function.name is required with source: it names the function in the text that is called",
                field=".name",
            ),
            rule(
                "!has(self.name) || has(self.source)",
                "function.name is only allowed with source: entrypoint names the function after its colon",
                field=".name",
            ),
        )
    )

    entrypoint: (
        Annotated[
            str,
            Field(
                min_length=3,
                max_length=512,
                pattern=_ENTRYPOINT,
                json_schema_extra=validations(
                    rule(
                        rf"self.matches(r'{_ENTRYPOINT}')",
                        "entrypoint is written module:function, such as math:factorial or a.b:Class.method",
                    )
                ),
            ),
        ]
        | None
    ) = Field(None, description="Importable function as module:name, such as math:factorial.")
    source: Annotated[str, Field(min_length=1, max_length=65536)] | None = Field(
        None, description="Python text that defines the function, at most 65536 characters."
    )
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = (
        Field(None, description="Name of the function in source that is called.")
    )
    args: Annotated[tuple[Json, ...], Field(max_length=64)] = Field(
        (),
        description=(
            "Positional arguments as any JSON, at most 64; changing them after creation has no effect."
        ),
    )
    kwargs: Annotated[dict[str, Json], Field(max_length=64)] = Field(
        {},
        description="Keyword arguments as any JSON, at most 64; changing them after creation has no effect.",
    )
    items: Annotated[tuple[Json, ...], Field(min_length=1, max_length=ITEMS_LIMIT)] | None = Field(
        None,
        description=(
            "Makes one call for each of these items, which comes before args, at most 10000. Unset: one call."
        ),
    )


class Command(Model):
    """A program on the node."""

    argv: Annotated[
        tuple[Annotated[str, Field(max_length=8192)], ...], Field(min_length=1, max_length=256)
    ] = Field(
        description="Program and arguments, run without a shell, 1 to 256 words of at most 8192 characters."
    )
    working_directory: Annotated[str, Field(max_length=1024, pattern=r"^/[^\n]*$")] | None = Field(
        None, description="Absolute path of the folder that the command runs in. Unset: a fresh folder."
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256, json_schema_extra=list_map("name"))] = Field(
        (), description="Environment variables besides those of the pool's image, at most 256."
    )
