"""Where machines come from: one frozen model per provider.

A model only names a provider and its settings; the adapters live in the operator, which also says when it
has none for a name. Credentials are never part of a model: `credentials` names a Secret in the pool's
namespace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from skyward.validation import integer, mapping, one_of, reject_unknown, strict, text, texts


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

    @property
    def places(self) -> tuple[str, ...]:
        """Regions that are allowed; empty: any."""
        return (self.region,) if self.region else ()

    @property
    def settings(self) -> dict[str, str]:
        """What the adapter gets."""
        return dict(self.parameters)


class Local(Provider):
    """Machines on this computer: processes with their own folder and SSH server. Free of charge."""

    name = "local"


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class AWS(Provider):
    """Amazon Web Services (EC2); docs/providers/aws.md has the details.

    `region` and `regions` may also be zones, such as us-east-1a. `subnet` and `security_group` may be lists.
    `credentials` names a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it the operator
    uses its own identity. Spot or on-demand is `Compute(allocation=...)`.
    """

    name: ClassVar[str] = "aws"
    regions: Sequence[str] = ()
    ami: str | None = None
    ami_parameter: str | None = None
    subnet: str | Sequence[str] | None = None
    security_group: str | Sequence[str] | None = None
    instance_profile: str | None = None
    ssh_cidr: str | None = None
    ssh_user: str | None = None
    ssh_port: int | None = None
    address: Literal["public", "private"] | None = None

    def __post_init__(self) -> None:
        Provider.__post_init__(self)
        object.__setattr__(self, "regions", texts("AWS.regions", self.regions))
        if self.region and self.regions:
            raise ValueError("AWS.region and AWS.regions exclude one another; write all of them in regions")
        for field_name in ("subnet", "security_group"):
            given = getattr(self, field_name)
            if given is not None and not isinstance(given, str):
                object.__setattr__(self, field_name, texts(f"AWS.{field_name}", given))
        for field_name in set(_AWS_PARAMETERS) - {"subnet", "security_group", "ssh_port"}:
            if getattr(self, field_name) is not None:
                text(f"AWS.{field_name}", getattr(self, field_name))
        if self.ssh_port is not None:
            integer("AWS.ssh_port", self.ssh_port, minimum=1, maximum=65535)
        if self.address is not None:
            one_of("AWS.address", self.address, ("public", "private"))
        reject_unknown("AWS.parameters", self.parameters, tuple(_AWS_PARAMETERS.values()))
        if both := sorted(set(self._given) & set(self.parameters)):
            raise ValueError(f"AWS.parameters has {', '.join(both)}, which is given as a field as well")

    @property
    def places(self) -> tuple[str, ...]:
        """Regions and zones that are allowed."""
        return tuple(self.regions) or ((self.region,) if self.region else ())

    @property
    def settings(self) -> dict[str, str]:
        """The parameters by their names in the resource."""
        return {**self.parameters, **self._given}

    @property
    def _given(self) -> dict[str, str]:
        found = {name: getattr(self, python) for python, name in _AWS_PARAMETERS.items()}
        return {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in found.items()
            if value is not None
        }


_AWS_PARAMETERS = {
    "ami": "ami",
    "ami_parameter": "amiParameter",
    "subnet": "subnet",
    "security_group": "securityGroup",
    "instance_profile": "instanceProfile",
    "ssh_cidr": "sshCidr",
    "ssh_user": "sshUser",
    "ssh_port": "sshPort",
    "address": "address",
}
"""Fields of `AWS`, and what they are called in `candidates[].parameters`."""


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
