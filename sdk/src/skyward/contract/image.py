"""The software of a node: Python, packages, environment."""

from typing import Annotated

from pydantic import Field

from skyward.contract.meta import EnvVar, Model, Sha256
from skyward.contract.rules import list_map, rule, validations

_PYTHON = r"^3\.(1[2-9]|[2-9][0-9])$"

PythonVersion = Annotated[
    str,
    Field(
        max_length=5,
        pattern=_PYTHON,
        json_schema_extra=validations(
            rule(
                rf"self.matches(r'{_PYTHON}')",
                'the Python version is written as major.minor in quotes, from "3.12" on, such as "3.13"',
            )
        ),
    ),
]
"""A minor version of Python, such as `3.13`."""

_Package = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class PackageIndex(Model):
    """A package index besides PyPI."""

    url: Annotated[str, Field(min_length=8, max_length=1024, pattern=r"^https?://[^\s]+$")] = Field(
        description="URL of the index, such as https://download.pytorch.org/whl/cu128."
    )
    packages: Annotated[tuple[_Package, ...], Field(max_length=256)] = Field(
        (), description="Packages that come from this index only, at most 256. Empty: any that PyPI lacks."
    )


class ShellVar(Model):
    """An environment variable whose value a command finds out on the node."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable: letters, digits and underscores, not beginning with a digit."
    )
    command: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="Shell command that is run once on the node; its output is the value."
    )


class Metric(Model):
    """A figure that is sampled on each node."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")] = Field(
        description="Name of the figure, such as cpu, gpu_memory or a name of your own."
    )
    command: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description="Shell command that prints the figure. Unset: the built-in figure of that name."
    )
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        5, description="Seconds between two samples, 1 to 3600."
    )


class Image(Model):
    """Software that every node has before it takes calls."""

    python: PythonVersion = Field(
        "3.13",
        description=(
            'Python of the node as major.minor, from "3.12" on; it must be the version of the client.'
        ),
    )
    pip: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^-\s][^\n]*$")], ...],
        Field(max_length=512),
    ] = Field((), description="Python packages as pip writes them, such as torch==2.9.1, at most 512.")
    indexes: Annotated[tuple[PackageIndex, ...], Field(max_length=16)] = Field(
        (), description="Package indexes besides PyPI, at most 16."
    )
    apt: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=2,
                    max_length=128,
                    pattern=r"^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$",
                ),
            ],
            ...,
        ],
        Field(max_length=256),
    ] = Field((), description="Debian packages, such as ffmpeg or git=1:2.39.5-0, at most 256.")
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256, json_schema_extra=list_map("name"))] = Field(
        (), description="Environment variables of every call, told apart by name, at most 256."
    )
    shell_vars: Annotated[tuple[ShellVar, ...], Field(max_length=64, json_schema_extra=list_map("name"))] = (
        Field((), description="Environment variables whose values commands find out on the node, at most 64.")
    )
    includes_digest: Sha256 | None = Field(
        None, description="SHA-256 of the archive of local files that the client uploads for the nodes."
    )
    metrics: Annotated[tuple[Metric, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = Field(
        (), description="Figures that are sampled on each node, told apart by name, at most 32."
    )
