"""Which AMI a machine boots from: the one that is asked for, else the newest of Ubuntu.

Machines with NVIDIA accelerators get AWS's own Deep Learning image, which has the driver. For others with
accelerators (Neuron, AMD) none is known that would work, and so none is guessed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward_operator.providers.aws.meanings import NotThere
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from skyward_operator.providers.aws.clients import Clients
    from skyward_operator.providers.aws.hardware import Hardware
    from skyward_operator.providers.aws.parameters import Parameters

PARAMETER_SECONDS = 3600.0
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
UBUNTU_WORD = {"x86_64": "amd64", "arm64": "arm64"}
NVIDIA = "/aws/service/deeplearning/ami/{}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI, and the disk that it needs."""

    id: str
    root_device: str
    least_gib: int


@dataclass(slots=True)
class Images:
    """The images that were looked up."""

    clients: Clients
    _parameters: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    _images: dict[tuple[str, str], Image] = field(default_factory=dict)

    async def image(self, region: str, machine: Hardware, parameters: Parameters) -> Image:
        """The image for a machine. Raises Rejected where none is known, or the one asked for is not there."""
        ami = parameters.ami or await self._newest(region, parameters.ami_parameter or usual(machine))
        if (region, ami) not in self._images:
            self._images[region, ami] = await self._look(region, ami)
        return self._images[region, ami]

    async def _newest(self, region: str, name: str) -> str:
        until, ami = self._parameters.get((region, name), (0.0, ""))
        if time.monotonic() >= until:
            try:
                answer = await self.clients.call("ssm", region, "get_parameter", Name=name)
            except NotThere:
                text = f"there is no SSM parameter {name} in {region}; name another one, or an AMI"
                raise Rejected(f"parameters.amiParameter: {text} with parameters.ami") from None
            ami = str(answer["Parameter"]["Value"])
            self._parameters[region, name] = (time.monotonic() + PARAMETER_SECONDS, ami)
        return ami

    async def _look(self, region: str, ami: str) -> Image:
        try:
            found = (await self.clients.call("ec2", region, "describe_images", ImageIds=[ami]))["Images"]
        except NotThere:
            found = []
        if not found:
            raise Rejected(
                f"parameters.ami: {ami} does not exist in {region}, or is not shared with this account"
            )
        root = str(found[0].get("RootDeviceName") or "/dev/sda1")
        sizes = [
            int(each.get("Ebs", {}).get("VolumeSize") or 0)
            for each in found[0].get("BlockDeviceMappings", ())
            if each.get("DeviceName") == root
        ]
        return Image(ami, root, max(sizes, default=0))


def usual(machine: Hardware) -> str:
    """The SSM parameter of the image for a machine. Raises Rejected where none is known."""
    if machine.accelerator is None:
        return UBUNTU.format(UBUNTU_WORD[machine.architecture])
    if machine.maker.upper() == "NVIDIA":
        return NVIDIA.format(machine.architecture)
    what = f"{machine.accelerator.name} of {machine.maker}"
    raise Rejected(f"parameters.ami: no image is known for {what}; name one with its drivers")
