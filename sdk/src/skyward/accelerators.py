"""Factories of accelerators: `sky.accelerators.A100(count=8)`, `.RTX_4090()`, `.Custom("name")`.

Any name is a factory: the operator says which names its providers offer. A plain string works wherever an
accelerator is asked for.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from skyward.spec import Accelerator

if TYPE_CHECKING:

    def A100(*, count: float = 1, memory: str | None = None, form_factor: str | None = None) -> Accelerator:  # noqa: N802
        """NVIDIA A100."""
        ...

    def H100(*, count: float = 1, memory: str | None = None, form_factor: str | None = None) -> Accelerator:  # noqa: N802
        """NVIDIA H100."""
        ...

    def L4(*, count: float = 1, memory: str | None = None, form_factor: str | None = None) -> Accelerator:  # noqa: N802
        """NVIDIA L4."""
        ...

    def T4(*, count: float = 1, memory: str | None = None, form_factor: str | None = None) -> Accelerator:  # noqa: N802
        """NVIDIA T4."""
        ...


def Custom(name: str, *, memory: str | None = None, count: float = 1) -> Accelerator:  # noqa: N802
    """An accelerator by the provider's own name."""
    return Accelerator(name, count=count, memory=memory)


def __getattr__(name: str) -> Callable[..., Accelerator]:
    if name.startswith("_") or not name[0].isupper():
        raise AttributeError(f"module 'skyward.accelerators' has no attribute {name!r}")
    return partial(Accelerator, name.replace("_", "-"))
