"""Where machines come from: one frozen model per provider.

A model only names a provider and its settings; the adapters live in the operator, which also says when it
has none for a name. Credentials are never part of a model: `credentials` names a Secret in the pool's
namespace.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from skyward.validation import mapping, strict, text


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider of machines. `parameters` are passed to its adapter as they are."""

    name: ClassVar[str] = ""
    region: str | None = None
    credentials: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("region", "credentials"):
            if getattr(self, name) is not None:
                text(f"{type(self).__name__}.{name}", getattr(self, name))
        object.__setattr__(self, "parameters", mapping(f"{type(self).__name__}.parameters", self.parameters))


class Local(Provider):
    """Machines on this computer: processes with their own folder and SSH server. Free of charge."""

    name = "local"


class AWS(Provider):
    """Amazon Web Services (EC2)."""

    name = "aws"


class DigitalOcean(Provider):
    """DigitalOcean."""

    name = "digitalocean"


class GCP(Provider):
    """Google Cloud (Compute Engine)."""

    name = "gcp"


class Hyperstack(Provider):
    """Hyperstack."""

    name = "hyperstack"


class Novita(Provider):
    """Novita."""

    name = "novita"


class RunPod(Provider):
    """RunPod."""

    name = "runpod"


class Scaleway(Provider):
    """Scaleway."""

    name = "scaleway"


class Sim(Provider):
    """The simulated cloud (docs/simcloud.md): rehearse here what would cost money elsewhere.

    `credentials` names a Secret with `endpoint` and `key`, and perhaps `profile`; without it the operator
    uses SKYWARD_SIM_ENDPOINT, SKYWARD_SIM_KEY and SKYWARD_SIM_PROFILE of its own environment.
    """

    name = "sim"


class TensorDock(Provider):
    """TensorDock."""

    name = "tensordock"


class VastAI(Provider):
    """Vast.ai."""

    name = "vastai"


class Verda(Provider):
    """Verda."""

    name = "verda"


class Vultr(Provider):
    """Vultr."""

    name = "vultr"


BY_NAME: dict[str, type[Provider]] = {each.name: each for each in Provider.__subclasses__()}
"""Providers by the word that stands for them in texts."""
