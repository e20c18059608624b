"""What a pool has in the account besides machines: a key pair in each region, a security group in each VPC.

Names follow from their content, so that whoever comes second finds what the first one made. They are removed
when no machine of their pool is left; what goes away between two requests is made again.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.meanings import InUse, NotThere, There
from skyward_operator.providers.contract import TAG_INSTALLATION, TAG_POOL
from skyward_operator.providers.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from skyward_operator.providers.aws.clients import Clients
    from skyward_operator.providers.aws.network import Subnet
    from skyward_operator.providers.contract import CreateRequest

TAG_OURS = "skyward.dev/managed-by"
OURS = "skyward"
NOT_ENDED = ["pending", "running", "stopping", "stopped", "shutting-down"]


@dataclass(slots=True)
class Side:
    """Key pairs and security groups of one account."""

    clients: Clients
    _made: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Ids of what this process has seen, by region, VPC, name and content."""

    async def key_pair(self, region: str, request: CreateRequest) -> str:
        """The name of a key pair with the pool's public key."""
        public = request.ssh_public_key.strip()
        name = side_name(request.tags, public)
        if (region, name) not in self._made:
            with suppress(There):
                await self.clients.call(
                    "ec2",
                    region,
                    "import_key_pair",
                    KeyName=name,
                    PublicKeyMaterial=public.encode(),
                    TagSpecifications=[specification("key-pair", request.tags)],
                )
            self._made[region, name] = name
        return name

    async def group(self, region: str, subnet: Subnet, source: str, port: int, request: CreateRequest) -> str:
        """The id of a group that lets SSH in from `source`, and the pool's machines to one another."""
        name = side_name(request.tags)
        key = (region, subnet.vpc, name, source, str(port))
        if key not in self._made:
            found = await self._find_group(region, subnet.vpc, name)
            group = found or await self._make_group(region, subnet.vpc, name, request)
            await self._let_in(region, group, source, port)
            self._made[key] = group
        return self._made[key]

    def forget(self, region: str) -> None:
        """Something of a region is not there any more."""
        for key in [key for key in self._made if key[0] == region]:
            del self._made[key]

    async def _find_group(self, region: str, vpc: str, name: str) -> str | None:
        filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": [name]}]
        found = await self.clients.pages(
            "ec2", region, "describe_security_groups", "SecurityGroups", Filters=filters
        )
        return str(found[0]["GroupId"]) if found else None

    async def _make_group(self, region: str, vpc: str, name: str, request: CreateRequest) -> str:
        try:
            made = await self.clients.call(
                "ec2",
                region,
                "create_security_group",
                GroupName=name,
                Description="Skyward: SSH from the operator to the machines of one pool",
                VpcId=vpc,
                TagSpecifications=[specification("security-group", request.tags)],
            )
        except There:
            if (found := await self._find_group(region, vpc, name)) is None:
                raise Transient(f"aws: security group {name} in {region} does not show yet") from None
            return found
        return str(made["GroupId"])

    async def _let_in(self, region: str, group: str, source: str, port: int) -> None:
        ssh = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": source, "Description": "SSH from the Skyward operator"}],
        }
        among = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group, "Description": "one pool"}]}
        for rule in (ssh, among):
            try:
                await self.clients.call(
                    "ec2", region, "authorize_security_group_ingress", GroupId=group, IpPermissions=[rule]
                )
            except There:
                continue
            except NotThere as error:
                self.forget(region)
                raise Transient(f"{error}; it is made again") from None

    async def clean_up(self, region: str, tags: Mapping[str, str]) -> bool:
        """Remove what carries these tags and belongs to no pool with a machine. True when nothing is left."""
        ask = self.clients.pages
        filters = tag_filters({TAG_OURS: OURS, **tags})
        keys = (await self.clients.call("ec2", region, "describe_key_pairs", Filters=filters))["KeyPairs"]
        groups = await ask("ec2", region, "describe_security_groups", "SecurityGroups", Filters=filters)
        if not keys and not groups:
            return True
        self.forget(region)
        used = await self._pools_with_machines(region, tags)
        idle_keys = [each["KeyName"] for each in keys if pool_of(each) not in used]
        idle_groups = [each["GroupId"] for each in groups if pool_of(each) not in used]
        removed = await asyncio.gather(
            *(self._remove(region, "delete_key_pair", KeyName=name) for name in idle_keys),
            *(self._remove(region, "delete_security_group", GroupId=group) for group in idle_groups),
        )
        return all(removed) and len(removed) == len(keys) + len(groups)

    async def _pools_with_machines(self, region: str, tags: Mapping[str, str]) -> set[str]:
        filters = [
            *tag_filters({TAG_OURS: OURS, **tags}),
            {"Name": "instance-state-name", "Values": NOT_ENDED},
        ]
        found = await self.clients.pages("ec2", region, "describe_instances", "Reservations", Filters=filters)
        return {pool_of(instance) for reservation in found for instance in reservation["Instances"]}

    async def _remove(self, region: str, method: str, **what: Any) -> bool:
        try:
            await self.clients.call("ec2", region, method, **what)
        except NotThere:
            return True
        except InUse:
            return False
        return True


def side_name(tags: Mapping[str, str], content: str = "") -> str:
    """The name of a side resource: one for each pool, and another for other content."""
    identity = "/".join([*shared(tags).values(), content])
    return f"skyward-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"


def shared(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of what the nodes of a pool share."""
    return {name: tags[name] for name in (TAG_INSTALLATION, TAG_POOL) if name in tags}


def specification(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Tags that something gets as it is made."""
    return {"ResourceType": kind, "Tags": tag_list({TAG_OURS: OURS, **shared(tags)})}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def tag_filters(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """What carries all of these tags."""
    return [{"Name": f"tag:{name}", "Values": [escaped(value)]} for name, value in tags.items()]


def escaped(value: str) -> str:
    r"""A value of a filter, in which `*`, `?` and `\` would have a meaning."""
    return "".join(f"\\{letter}" if letter in "*?\\" else letter for letter in value)


def tags_of(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Tags as EC2 shows them."""
    return {each["Key"]: each["Value"] for each in tags}


def pool_of(resource: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """The pool that something carries; empty for none."""
    return tags_of(resource.get("Tags", ())).get(TAG_POOL, "")
