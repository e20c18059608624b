"""`Image`: the Python environment and the system packages of a node."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skyward.errors import EnvironmentMismatch
from skyward.validation import instance, mapping, strict, text, texts

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
DEBIAN_PACKAGE = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?"
"""As the resource definition has them; here a mistake is told before it costs a request."""


@strict
@dataclass(frozen=True, slots=True)
class PipIndex:
    """A package index that serves only the packages named."""

    url: str
    packages: Sequence[str] = ()

    def __post_init__(self) -> None:
        text(
            "PipIndex.url",
            self.url,
            pattern=r"https?://\S+",
            example="https://download.pytorch.org/whl/cu121",
        )
        object.__setattr__(self, "packages", texts("PipIndex.packages", self.packages))


@strict
@dataclass(frozen=True, slots=True)
class Image:
    """What is installed on a node before it takes calls.

    `python` is the minor version; "auto" is the one that runs this program, which pickled calls need.
    `env` are environment variables; `shell_vars` are shell commands whose output becomes one.
    """

    python: str = "auto"
    pip: Sequence[str] = ()
    pip_indexes: Sequence[PipIndex] = ()
    apt: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    shell_vars: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.python != "auto":
            text("Image.python", self.python, pattern=r"3\.\d{1,2}", example="3.13")
        for name in ("pip", "apt"):
            object.__setattr__(self, name, texts(f"Image.{name}", getattr(self, name)))
        for name in ("env", "shell_vars"):
            object.__setattr__(self, name, mapping(f"Image.{name}", getattr(self, name)))
            for variable in getattr(self, name):
                text(f"a variable's name in Image.{name}", variable, pattern=VARIABLE, example="HF_HOME")
        for package in self.apt:
            text("Image.apt", package, pattern=DEBIAN_PACKAGE, example="ffmpeg or git=1:2.39.5-0")
        for index in self.pip_indexes:
            instance("Image.pip_indexes", index, PipIndex, "[sky.PipIndex(url=..., packages=[...])]")
        object.__setattr__(self, "pip_indexes", tuple(self.pip_indexes))

    @property
    def python_minor(self) -> str:
        """The Python minor version of the nodes, such as "3.13"."""
        return client_python() if self.python == "auto" else self.python


def check_python(wanted: str, where: str, outdated: str | None = None) -> None:
    """Raise EnvironmentMismatch unless `wanted` is the Python minor that runs this program.

    `outdated` names a node that has it from an earlier image than its pool's.
    """
    if wanted != client_python():
        if outdated:
            remedy = f"the pool's image is newer than the node: kubectl delete skn {outdated} has it replaced"
        else:
            remedy = (
                f"give the pool sky.Image(python={client_python()!r}), or run this program with "
                f"Python {wanted}"
            )
        raise EnvironmentMismatch(
            f"this program runs Python {client_python()} and {where} runs {wanted}: "
            "pickled calls only work between equal minor versions",
            remedy=remedy,
        )


def client_python() -> str:
    """The Python minor version that runs this program."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


DEFAULT_IMAGE = Image()
"""This program's Python and nothing else."""
