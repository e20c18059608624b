"""The names of the first generation: `ComputePool`, `@sky.pool`, `S3Volume`.

They make what `Compute` makes. Parameters that have other names today are translated; what a parameter meant
then and cannot mean now is refused, with how to write it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from skyward.functions import PendingFunction, PendingFunctionGroup
from skyward.image import DEFAULT_IMAGE, Image
from skyward.pools import Pool
from skyward.providers import BY_NAME, Provider
from skyward.spec import (
    Accelerator,
    Allocation,
    Architecture,
    Choice,
    Nodes,
    Options,
    Selection,
    Spec,
    Volume,
    Worker,
)
from skyward.validation import instance, integer, mapping, nearest, number, one_of, text

type Display = Literal["panel", "spinner", "log", "quiet"]

_CONSOLES: dict[str, Any] = {"panel": "rich", "spinner": "minimal", "log": "log", "quiet": "silent"}
PendingCompute = PendingFunction
PendingComputeGroup = PendingBatch = PendingFunctionGroup


def ComputePool(  # noqa: N802 - reads as the thing that it returns
    provider: Provider | str | Sequence[Provider | str],
    *,
    image: Image = DEFAULT_IMAGE,
    nodes: int | tuple[int, int] | Nodes = 1,
    machine: str | None = None,
    accelerator: Accelerator | str | None = None,
    architecture: Architecture | None = None,
    cpu: float | None = None,
    memory: str | None = None,
    volume: Iterable[Volume] = (),
    allocation: str = "spot-if-available",
    selection: Selection | Choice = "first",
    timeout: int | None = None,
    env: Mapping[str, str] | None = None,
    max_hourly_cost: float | None = None,
    preemption: Literal["fail", "replace", "ignore"] = "replace",
    concurrency: int = 1,
    display: Display | None = None,
    name: str | None = None,
) -> Pool:
    """The same as `Compute`, in the words of the first generation.

    Several providers are tried in their order unless `selection` says otherwise. `machine` is an instance
    type, `cpu` what is `vcpus` there, `memory` a text such as "32GB". After `timeout` seconds each machine
    ends, whatever it runs; there is no such end unless it is given. A call whose node is taken away fails
    with `preemption="fail"` and is tried again on another one otherwise. Raises TypeError or ValueError at
    once for what cannot be right.
    """
    one_of("preemption", preemption, ("fail", "replace", "ignore"))
    if display is not None:
        one_of("display", display, tuple(_CONSOLES))
    instance("image", image, Image, "sky.Image(pip=['torch'])")
    if env is not None:
        image = replace(image, env={**image.env, **mapping("env", env)})
    options = Options(
        selection=selection,
        worker=Worker(concurrency=integer("concurrency", concurrency, minimum=1)),
        max_lifetime=timeout,
        retry_on_interruption=0 if preemption == "fail" else 3,
        console=_CONSOLES[display] if display is not None else True,
    )
    specs = [
        Spec(
            provider=each,
            accelerator=accelerator,
            nodes=nodes,
            instance_type=machine,
            vcpus=None if cpu is None else number("cpu", cpu),
            memory_gb=_gigabytes(memory),
            architecture=architecture,
            allocation=cast("Allocation", allocation),  # checked there, with the older words
            image=image,
            max_hourly_cost=max_hourly_cost,
            volumes=tuple(volume),
        )
        for each in _providers(provider)
    ]
    return Pool(specs, name, options)


def pool[**P, R](*given: Any, **fields: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`@sky.pool(provider=sky.AWS(), nodes=4)`: the function has a pool while it runs, `>> sky` sends to it.

    Takes what `ComputePool` takes. Each call of the function makes a pool and releases it, whether the
    function returns or raises.
    """
    if given and callable(given[0]) and not isinstance(given[0], Provider):
        raise TypeError("@sky.pool needs a provider: write @sky.pool(provider=sky.Local())")
    ComputePool(*given, **fields)  # a mistake is told where it is written, not when the function is called

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with ComputePool(*given, **fields):
                return function(*args, **kwargs)

        return run

    return decorate


def S3Volume(  # noqa: N802 - the name of a class then
    *, bucket: str, mount_path: str, prefix: str = "", read_only: bool = True
) -> Volume:
    """A bucket as a folder; `Volume(mount=...)` today."""
    return Volume(bucket=bucket, mount=mount_path, prefix=prefix, read_only=read_only)


def _providers(given: Provider | str | Sequence[Provider | str]) -> list[Provider]:
    several = given if isinstance(given, list | tuple) else [given]
    if not several:
        raise ValueError("provider is an empty list; write provider=sky.Local()")
    return [_provider(each) for each in several]


def _provider(given: Any) -> Provider:
    if isinstance(given, str):
        if given not in BY_NAME:
            hint = nearest(given, BY_NAME, cutoff=0.6)
            raise ValueError(f"provider={given!r} is none of {', '.join(BY_NAME)}{hint}")
        return BY_NAME[given]()
    return cast("Provider", given)  # Spec says what is wrong with anything else


def _gigabytes(memory: str | None) -> float | None:
    if memory is None:
        return None
    text("memory", memory, pattern=r"\d+(\.\d+)? ?(GB|GiB|G)", example="32GB")
    return float(memory.rstrip("GiBb "))
