"""The pure parts of the aws adapter: what is read, what is ordered, what is refused."""

from __future__ import annotations

import gzip
import random
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from email import message_from_bytes
from typing import TYPE_CHECKING, Any

import pytest

from skyward.contract.hardware import Candidate
from skyward_operator.providers.aws import parameters as parameters_
from skyward_operator.providers.aws.account import account
from skyward_operator.providers.aws.hardware import Hardware, hardware
from skyward_operator.providers.aws.hostkeys import host_key
from skyward_operator.providers.aws.images import Image, usual
from skyward_operator.providers.aws.instances import machine, parse_id
from skyward_operator.providers.aws.market import kept, listed
from skyward_operator.providers.aws.meanings import Call, meaning
from skyward_operator.providers.aws.network import Subnet
from skyward_operator.providers.aws.offers import Catalog, sold
from skyward_operator.providers.aws.order import Surroundings, order
from skyward_operator.providers.aws.places import region_of
from skyward_operator.providers.aws.side import escaped
from skyward_operator.providers.aws.userdata import own_script, user_data
from skyward_operator.providers.contract import Address, CreateRequest, MachineState, Offer
from skyward_operator.providers.errors import (
    ProviderError,
    QuotaExceeded,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
BUYING = Call("ec2:RunInstances", "us-east-1", buys=True)
LOOKING = Call("ec2:DescribeInstances", "us-east-1")


# Hardware


def document(name: str = "g6.xlarge", **more: Any) -> dict[str, Any]:
    """An instance type as EC2 describes it."""
    return {
        "InstanceType": name,
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "SupportedUsageClasses": ["on-demand", "spot", "capacity-block"],
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "CurrentGeneration": True,
        **more,
    }


@pytest.mark.parametrize(
    ("info", "device", "total", "wanted"),
    [
        ("GpuInfo", {"Name": "L4", "Manufacturer": "NVIDIA", "Count": 4, "MemoryInfo": {"SizeInMiB": 22888}},
         91552, ("L4", "4", 24, "NVIDIA")),
        ("GpuInfo", {"Name": "L4", "Manufacturer": "NVIDIA", "Count": 0, "GpuPartitionSize": 0.125,
                     "MemoryInfo": {"SizeInMiB": 2861}}, 2861, ("L4", "0.125", 2, "NVIDIA")),
        ("GpuInfo", {"Name": "RTX PRO Server 6000", "Manufacturer": "NVIDIA", "Count": 1,
                     "MemoryInfo": {"SizeInMiB": 98304}}, 98304, ("RTXPRO6000", "1", 96, "NVIDIA")),
        ("GpuInfo", {"Name": "A100", "Manufacturer": "NVIDIA", "Count": 8,
                     "MemoryInfo": {"SizeInMiB": 81920}}, 655360, ("A100", "8", 80, "NVIDIA")),
        ("NeuronInfo", {"Name": "Trainium", "Count": 16, "MemoryInfo": {"SizeInMiB": 32768}},
         None, ("Trainium", "16", 32, "AWS")),
    ],
)  # fmt: skip
def test_accelerators_have_the_names_and_memory_that_people_know(
    info: str, device: dict[str, Any], total: int | None, wanted: tuple[str, str, int, str]
) -> None:
    key = "Gpus" if info == "GpuInfo" else "NeuronDevices"
    about: dict[str, Any] = {info: {key: [device], **({"TotalGpuMemoryInMiB": total} if total else {})}}
    read = hardware(document(**about))
    assert read is not None
    assert read.accelerator is not None
    found = read.accelerator
    assert (found.name, str(found.count), found.memory_gib, read.maker) == wanted
    assert read.markets == {"on-demand", "spot"}


def test_a_mac_is_not_sold() -> None:
    mac = {"ProcessorInfo": {"SupportedArchitectures": ["arm64_mac"]}}
    assert hardware(document("mac2.metal", **mac)) is None


@pytest.mark.parametrize(
    ("more", "offered"),
    [
        ({}, True),
        ({"BurstablePerformanceSupported": True}, False),
        ({"BareMetal": True}, False),
        ({"CurrentGeneration": False}, False),
        ({"MemoryInfo": {"SizeInMiB": 2048}}, False),
        ({"GpuInfo": {"Gpus": [{"Name": "L4", "Count": 1, "Manufacturer": "NVIDIA"}]}}, False),
    ],
)
def test_who_names_no_type_is_offered_machines_that_will_do(more: dict[str, Any], offered: bool) -> None:
    each = hardware(document("x1.large", **more))
    assert each is not None
    catalog = Catalog({"x1.large": each}, {"x1.large": frozenset({"us-east-1a", "us-east-1b"})})
    anything = Candidate.read({"name": "c", "provider": "aws"})
    by_name = Candidate.read({"name": "c", "provider": "aws", "instanceTypes": ["x1.large"]})
    assert bool(sold(anything, catalog, frozenset())) == offered
    assert {offer.region for offer in sold(by_name, catalog, frozenset({"us-east-1b"}))} == {"us-east-1b"}


def test_an_image_is_only_guessed_where_one_is_known() -> None:
    def having(**more: Any) -> Hardware:
        read = hardware(document(**more))
        assert read is not None
        return read

    assert "canonical/ubuntu/server/24.04/stable/current/amd64" in usual(having())
    nvidia = {"Gpus": [{"Name": "L4", "Count": 1, "Manufacturer": "NVIDIA"}]}
    assert "deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu" in usual(having(GpuInfo=nvidia))
    with pytest.raises(Rejected, match="no image is known for Trainium of AWS; name one"):
        usual(having(NeuronInfo={"NeuronDevices": [{"Name": "Trainium", "Count": 1}]}))


# Host keys


@pytest.mark.parametrize(
    ("console", "key"),
    [
        (f"[    1.0] boot\n\nskyward-host-key {KEY}.\nmore", KEY),
        (f"skyward-host-key {KEY}.\r\nskyward-host-key {OTHER}.\r\n", KEY),
        (f"skyward-host-key {KEY}", None),  # cut off: perhaps not whole
        (f"skyward-host-key {KEY[:-4]}[ 12.3] kernel\nskyward-host-key {KEY}.\n", KEY),
        (f"user said: skyward-host-key {OTHER}.\n", None),
        ("[   20.1] cloud-init[991]: -----BEGIN SSH HOST KEY KEYS-----\n"
         f"[   20.1] cloud-init[991]: {KEY} root@ip\n"
         "[   20.1] cloud-init[991]: -----END SSH HOST KEY KEYS-----\n", KEY),
        (f"-----BEGIN SSH HOST KEY KEYS-----\n{KEY}", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_first_key_that_a_console_shows_whole_is_the_machine_s(console: str, key: str | None) -> None:
    assert host_key(console) == key


def test_user_data_says_the_public_key_and_holds_no_secret(tmp_path: Path) -> None:
    """The script itself is run, as a machine runs it."""
    (tmp_path / "ssh_host_ed25519_key.pub").write_text(f"{KEY} root@machine\n")
    data = user_data(None)
    (part,) = [each for each in message_from_bytes(gzip.decompress(data)).walk() if not each.is_multipart()]
    script = part.get_payload(decode=True)
    assert isinstance(script, bytes)
    (tmp_path / "script").write_bytes(script)
    console = tmp_path / "console"
    environment = {
        "SKYWARD_SSH_FOLDER": str(tmp_path),
        "SKYWARD_CONSOLE": str(console),
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(["sh", str(tmp_path / "script")], env=environment, check=True)
    assert host_key(console.read_text()) == KEY
    assert "PRIVATE" not in own_script()
    assert data == user_data(None), "the same order has the same bytes"


def test_user_data_of_the_caller_comes_along_and_has_a_limit() -> None:
    parts = list(message_from_bytes(gzip.decompress(user_data("#!/bin/sh\necho mine\n"))).walk())
    assert [each.get_content_type() for each in parts[1:]] == ["text/x-shellscript"] * 2
    assert parts[2].get_payload(decode=True) == b"#!/bin/sh\necho mine\n"
    with pytest.raises(Rejected, match="may have 16384"):
        user_data(random.Random(1).randbytes(40_000).hex())


# Orders


def request(**fields: Any) -> CreateRequest:
    """An order."""
    offer = Offer("aws", "us-east-1a", "m5.large", fields.pop("market", "on-demand"), Decimal(1), Decimal(1))
    return CreateRequest(offer, "token", "node-0", {"skyward.dev/pool": "p"}, KEY, **fields)


def ordered(**fields: Any) -> dict[str, Any]:
    """What RunInstances gets."""
    asked = request(**fields)
    around = Surroundings(
        Image("ami-1", "/dev/xvda", 8), Subnet("subnet-1", "us-east-1a", "vpc-1"), "k", ["sg-1"]
    )
    return order(asked, parameters_.read(asked.parameters), around, b"data")


def test_an_order_ends_with_its_machine_and_asks_for_the_new_metadata_only() -> None:
    made = ordered()
    assert (made["ClientToken"], made["MinCount"], made["MaxCount"]) == ("token", 1, 1)
    assert made["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert made["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = made["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/xvda"
    assert (disk["Ebs"]["DeleteOnTermination"], disk["Ebs"]["VolumeSize"]) == (True, 64)
    (network,) = made["NetworkInterfaces"]
    assert (network["Groups"], network["AssociatePublicIpAddress"]) == (["sg-1"], True)
    assert "InstanceMarketOptions" not in made
    for specification in made["TagSpecifications"]:
        assert {"Key": "skyward.dev/managed-by", "Value": "skyward"} in specification["Tags"]


def test_a_spot_order_leaves_no_request_and_has_its_cap() -> None:
    options = ordered(market="spot", max_hourly_price=Decimal("0.50"))["InstanceMarketOptions"]["SpotOptions"]
    wanted = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate", "MaxPrice": "0.50"}
    assert options == wanted
    assert "MaxPrice" not in ordered(market="spot")["InstanceMarketOptions"]["SpotOptions"]


def test_what_a_candidate_asks_for_is_ordered() -> None:
    profile = "arn:aws:iam::123456789012:instance-profile/trainer"
    parameters = {"instanceProfile": profile, "address": "private", "sshUser": "admin", "sshPort": "2222"}
    made = ordered(disk_gib=500, parameters=parameters)
    assert made["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 500
    assert made["IamInstanceProfile"] == {"Arn": profile}
    assert made["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    instance = {
        "InstanceId": "i-0123456789abcdef0",
        "ClientToken": "token",
        "State": {"Name": "running"},
        "PrivateIpAddress": "10.0.0.7",
        "PublicIpAddress": "3.3.3.3",
        "LaunchTime": datetime.now(UTC),
        "Tags": made["TagSpecifications"][0]["Tags"],
    }
    seen = machine("us-east-1", instance, KEY)
    assert (seen.id, seen.address) == ("us-east-1/i-0123456789abcdef0", Address("10.0.0.7", 2222, "admin"))
    assert seen.tags == {"skyward.dev/pool": "p"}, "the adapter's own tags are not its caller's"
    assert machine("us-east-1", instance).address is None, "nobody connects without a host key"
    assert machine("us-east-1", instance, in_list=True).address == seen.address
    taken = {"State": {"Name": "terminated"}, "StateReason": {"Code": "Server.SpotInstanceTermination"}}
    assert machine("us-east-1", {**instance, **taken}).preempted
    assert not machine("us-east-1", {**instance, "State": {"Name": "terminated"}}).preempted
    stopped = machine("us-east-1", {**instance, "State": {"Name": "stopped"}})
    assert stopped.state is MachineState.STOPPING


# Words that are read


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ami": "secret-4711"}, r"parameters\.ami: its value is not like ami-"),
        ({"sshPort": "70000"}, r"parameters\.sshPort"),
        ({"sshCidr": "1.2.3.4/8"}, r"parameters\.sshCidr"),
        ({"address": "both"}, "neither public nor private"),
        ({"subnet": "subnet-01234567,secret-4711"}, r"parameters\.subnet"),
        ({"ami": "ami-01234567", "amiParameter": "/x"}, "exclude one another"),
        ({"profile": "secret-4711"}, "no profile; it has ami.*AWS_PROFILE"),
        ({"endpoint": "http://secret-4711"}, "AWS_ENDPOINT_URL"),
    ],
)
def test_a_parameter_is_refused_by_its_name_without_its_value(given: dict[str, str], says: str) -> None:
    with pytest.raises(Rejected, match=says) as caught:
        parameters_.read(given)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": "planted"}, "AWS_SECRET_ACCESS_KEY missing in the Secret"),
        ({"AWS_SECRET_ACCESS_KEY": "planted"}, "AWS_ACCESS_KEY_ID missing in the Secret"),
        ({"AWS_ACCESS_KEY_ID": "planted", "AWS_SECRET_ACCESS_KEY": "planted", "AWS_REGOIN": "planted"},
         "AWS_REGOIN, which is not known"),
        ({"AWS_ACCESS_KEY_ID": "planted", "AWS_SECRET_ACCESS_KEY": "planted", "AWS_ENDPOINT_URL": "planted"},
         "is not a URL"),
    ],
)  # fmt: skip
def test_a_secret_that_lacks_something_is_told_by_name(data: dict[str, str], says: str) -> None:
    with pytest.raises(Unauthorized, match=says) as caught:
        account(data, {})
    assert "planted" not in str(caught.value)


def test_the_region_of_an_account_is_the_nearest_that_is_said() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert account(keys, {"AWS_REGION": "sa-east-1"}).region == "us-east-1"
    assert account(keys | {"SKYWARD_AWS_REGIONS": " eu-west-1, eu-west-2"}, {}).region == "eu-west-1"
    made = account(keys | {"SKYWARD_AWS_REGIONS": "eu-west-1", "AWS_REGION": "eu-north-1"}, {})
    assert (made.region, made.regions) == ("eu-north-1", ("eu-west-1",))
    assert account({}, {"AWS_DEFAULT_REGION": "sa-east-1"}).region == "sa-east-1"


@pytest.mark.parametrize(
    ("code", "status", "call", "kind"),
    [
        ("NobodyKnowsThis", 500, BUYING, UnknownOutcome),
        ("NobodyKnowsThis", 500, LOOKING, Transient),
        ("NobodyKnowsThis", 400, BUYING, Rejected),
        ("AuthFailure", 401, LOOKING, Unauthorized),
        ("Client.UnauthorizedOperation", 403, LOOKING, Unauthorized),
        ("RequestExpired", 400, LOOKING, Unauthorized),
    ],
)
def test_a_code_means_what_the_caller_should_do(
    code: str, status: int, call: Call, kind: type[ProviderError]
) -> None:
    error = meaning(code, "words", status, call)
    assert isinstance(error, kind)
    assert "us-east-1" in str(error)


def test_a_permission_is_named_and_a_signature_is_never_shown() -> None:
    words = "User: arn:aws:iam::1:user/x is not authorized to perform: iam:PassRole on resource: y because"
    assert "permission iam:PassRole is missing" in str(meaning("UnauthorizedOperation", words, 403, BUYING))
    assert "permission ec2:RunInstances is missing" in str(meaning("AccessDenied", "no", 403, BUYING))
    quoted = "The canonical string should have been 'x-amz-security-token:planted'"
    assert "planted" not in str(meaning("SignatureDoesNotMatch", quoted, 403, LOOKING))


@pytest.mark.parametrize(
    ("limit", "known"), [("limit of 0 allows", 0), ("limit of 32 allows", 32), ("", None)]
)
def test_a_quota_says_how_much_it_is_where_aws_tells(limit: str, known: int | None) -> None:
    words = f"You have requested more vCPU capacity than your current vCPU {limit} for the instance bucket"
    error = meaning("VcpuLimitExceeded", words, 400, BUYING)
    assert isinstance(error, QuotaExceeded)
    assert error.limit == known


@pytest.mark.parametrize("word", ["us-east-1", "us-east-1-bos-1a", "eu", "eu-west-1ab"])
def test_what_is_no_zone_is_refused(word: str) -> None:
    with pytest.raises(Rejected, match="is not a zone"):
        region_of(word)


@pytest.mark.parametrize("word", ["i-0123456789abcdef0", "us-east-1/x", "us-east-1/i-0123456789abcdef0/x"])
def test_what_is_no_id_is_refused(word: str) -> None:
    with pytest.raises(Rejected, match="is not an id"):
        parse_id(word)


def test_a_filter_means_what_it_says() -> None:
    assert escaped(r"a*b?c\d") == r"a\*b\?c\\d"


# Prices


def test_the_price_by_the_hour_is_read_from_the_list_and_nothing_else() -> None:
    dimensions = {
        "r": {"unit": "Hrs", "pricePerUnit": {"USD": "0.0000000000"}},
        "s": {"unit": "Quantity", "pricePerUnit": {"USD": "7"}},
        "t": {"unit": "Hrs", "pricePerUnit": {"USD": "0.0960000000"}},
    }
    product = {"product": {"attributes": {"instanceType": "m5.large"}}}
    terms = {"terms": {"OnDemand": {"x": {"priceDimensions": dimensions}}}}
    assert listed(product | terms) == ("m5.large", Decimal("0.096"))
    assert listed(product) is None
    assert (
        listed(product | {"terms": {"OnDemand": {"x": {"priceDimensions": {"r": {"unit": "Hrs"}}}}}}) is None
    )


def test_prices_that_are_kept_have_a_date_and_are_of_one_region() -> None:
    assert kept("us-east-1")["g5.xlarge"] == Decimal("1.006")
    assert kept("eu-west-1") == {}
    assert all(price > 0 for price in kept("us-east-1").values())
