"""The request for one machine, as RunInstances takes it. Pure.

Powering the machine off ends it for good, and its disk with it. The token is the caller's, and its offer has
the zone: EC2 keeps tokens apart by zone, so one token must never be asked for in two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.instances import TAG_NAME, TAG_SSH
from skyward_operator.providers.aws.offers import DISK_GIB, LARGEST_DISK_GIB
from skyward_operator.providers.aws.side import OURS, TAG_OURS, specification, tag_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.providers.aws.images import Image
    from skyward_operator.providers.aws.network import Subnet
    from skyward_operator.providers.aws.parameters import Parameters
    from skyward_operator.providers.contract import CreateRequest


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is there before the machine."""

    image: Image
    subnet: Subnet
    key_pair: str
    groups: Sequence[str]


def order(
    request: CreateRequest, parameters: Parameters, around: Surroundings, user_data: bytes
) -> dict[str, Any]:
    """The parameters of RunInstances."""
    made: dict[str, Any] = {
        "ImageId": around.image.id,
        "InstanceType": request.offer.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": request.token,
        "KeyName": around.key_pair,
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
        },
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": around.subnet.id,
                "Groups": list(around.groups),
                "AssociatePublicIpAddress": parameters.address == "public",
                "DeleteOnTermination": True,
            }
        ],
        "BlockDeviceMappings": [
            {
                "DeviceName": around.image.root_device,
                "Ebs": {
                    "VolumeSize": disk_gib(request, around.image),
                    "VolumeType": "gp3",
                    "DeleteOnTermination": True,
                },
            }
        ],
        "TagSpecifications": tags(request, parameters),
    }
    if parameters.instance_profile is not None:
        kind = "Arn" if parameters.instance_profile.startswith("arn:") else "Name"
        made["IamInstanceProfile"] = {kind: parameters.instance_profile}
    if request.offer.market == "spot":
        made["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot(request)}
    return made


def spot(request: CreateRequest) -> Mapping[str, str]:
    """A spot machine that leaves no request behind when it ends."""
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    cap = request.max_hourly_price
    return options if cap is None else {**options, "MaxPrice": f"{cap:f}"}


def disk_gib(request: CreateRequest, image: Image) -> int:
    """What is asked for, and not less than the image needs."""
    return min(LARGEST_DISK_GIB, max(image.least_gib, request.disk_gib or DISK_GIB))


def tags(request: CreateRequest, parameters: Parameters) -> list[dict[str, Any]]:
    """Tags of the machine, and of what comes and goes with it."""
    ssh = f"{parameters.address}/{parameters.ssh_user}/{parameters.ssh_port}"
    mine = {TAG_OURS: OURS, TAG_NAME: request.name, TAG_SSH: ssh, **request.tags}
    kinds = ["instance", "volume", "network-interface"]
    made = [{"ResourceType": kind, "Tags": tag_list(mine)} for kind in kinds[:1]]
    made += [specification(kind, request.tags) for kind in kinds[1:]]
    if request.offer.market == "spot":
        made.append({"ResourceType": "spot-instances-request", "Tags": tag_list(mine)})
    return made
