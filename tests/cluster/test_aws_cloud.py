"""Pools on AWS, which is the double, from a person's program or manifest to what is left there: nothing."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.aws_double.process import SECRET, Double, double
from tests.cluster.front_door import MINUTES, ROOT, Person, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(12 * MINUTES)

MANIFEST = """
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData:
  AWS_ACCESS_KEY_ID: "{key}"
  AWS_SECRET_ACCESS_KEY: "{secret}"
  AWS_ENDPOINT_URL: "{endpoint}"
  SKYWARD_AWS_REGIONS: "eu-west-1,us-east-1"
---
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: {name}}}
spec:
  candidates:
    - name: cloud
      provider: aws
      credentialsRef: {{name: {name}}}
      regions: [eu-west-1]
      instanceTypes: [c7g.large]
      market: on-demand
      parameters: {{sshUser: {user}, sshPort: "2222", sshCidr: 127.0.0.1/32}}
  nodes: {{desired: 1}}
"""
LEFT = ("alive", "key_pairs", "groups")
READER = ["ec2:DescribeInstanceTypes", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeSubnets",
          "ec2:DescribeInstances", "ec2:DescribeKeyPairs", "ec2:DescribeSecurityGroups", "ec2:DescribeImages",
          "ec2:DescribeSpotInstanceRequests", "ssm:GetParameter", "pricing:GetProducts"]  # fmt: skip


@pytest.fixture(scope="module")
def aws() -> Iterator[Double]:
    """One double for the module."""
    with double() as made:
        yield made


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody whose operator has no identity at AWS."""
    nowhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    with newcomer(**nowhere, AWS_EC2_METADATA_DISABLED="true") as somebody:
        up = somebody.run("skyward", "local", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield somebody


def apply(person: Person, aws: Double, name: str, key: str) -> None:
    """A Secret and a pool that uses it."""
    words = {"name": name, "key": key, "secret": SECRET, "endpoint": aws.endpoint, "user": getpass.getuser()}
    manifest = person.folder / f"{name}.yaml"
    manifest.write_text(MANIFEST.format(**words))
    person.kubectl("apply", "-f", manifest)


def assert_nothing_left(aws: Double) -> None:
    """No machine, key pair or group."""
    audit = aws.audit()
    assert {name: audit[name] for name in LEFT} == {key: [] for key in LEFT}, audit


def test_hello_aws_runs_the_digits_example_and_leaves_nothing() -> None:
    """As `make hello-aws` does it: with the operator's own identity, on spot machines."""
    command = [sys.executable, "-m", "tests.aws_double.hello"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"shards merged\D+0\.9\d+", done.stdout)
    assert re.search(r"14 calls · 2 nodes · .* · nothing left running", done.stdout + done.stderr)
    assert re.search(r'"AWS" sold 2 machines for \$0\.00\d*[1-9]\d*\nleft there: nothing', done.stdout)


def test_a_pool_in_yaml_buys_with_the_keys_of_a_secret_and_gives_all_back(
    person: Person, aws: Double
) -> None:
    aws.reset()
    apply(person, aws, "by-secret", "AKIADOUBLE")
    person.kubectl("wait", "--for=condition=Ready", "skp/by-secret", "--timeout=180s")
    (node,) = json.loads(person.kubectl("get", "skn", "-o", "json"))["items"]
    assert re.fullmatch(r"eu-west-1/i-[0-9a-f]+", node["status"]["providerId"])
    assert node["status"]["launch"]["offer"]["region"].startswith("eu-west-1")
    assert node["status"]["hostKey"].startswith("ssh-ed25519 ")
    assert aws.audit()["key_pairs"]
    assert aws.audit()["groups"]
    person.kubectl("delete", "skp", "by-secret")
    assert aws.audit()["bought"] == 1
    assert_nothing_left(aws)


@pytest.mark.parametrize(
    ("name", "key", "says"),
    [
        ("stranger", "AKIAPLANTED", "AWS does not accept the access keys"),
        ("reader", "AKIAREADER", "the permission ec2:ImportKeyPair is missing"),
    ],
)
def test_keys_that_are_wrong_or_may_too_little_are_told_and_buy_nothing(
    person: Person, aws: Double, name: str, key: str, says: str
) -> None:
    aws.reset()
    aws.keys(AKIAREADER=READER)
    apply(person, aws, name, key)
    person.kubectl("wait", "--for=condition=CredentialsValid=false", f"skp/{name}", "--timeout=90s")
    shown = person.kubectl("get", "skp,skn", "-o", "yaml")
    assert says in " ".join(shown.split())
    assert SECRET not in shown
    aws.keys(AKIAREADER=None)  # so that what is left can be removed
    person.kubectl("delete", "skp", name)
    assert aws.audit()["bought"] == 0


def test_an_operator_without_an_identity_says_so(person: Person) -> None:
    manifest = person.folder / "nobody.yaml"
    pool = MANIFEST.partition("---")[2].replace("      credentialsRef: {{name: {name}}}\n", "")
    manifest.write_text(pool.format(name="nobody", user="somebody"))
    person.kubectl("apply", "-f", manifest)
    person.kubectl("wait", "--for=condition=CredentialsValid=false", "skp/nobody", "--timeout=90s")
    shown = " ".join(person.kubectl("get", "skp,skn", "-o", "yaml").split())
    assert "no AWS identity that works" in shown
    person.kubectl("delete", "skp", "nobody")
