"""`sky.AWS(...)`: what it takes, what it says in the resource, and what it refuses at once."""

from __future__ import annotations

from typing import Any

import pytest

import skyward as sky
from skyward.providers import _AWS_PARAMETERS
from skyward_operator.providers.aws.parameters import CHECKS, read


def test_every_field_arrives_under_the_name_that_the_adapter_reads() -> None:
    made = sky.AWS(
        regions=["eu-west-1", "us-east-1a"],
        ami="ami-0123456789abcdef0",
        subnet=["subnet-01234567", "subnet-89abcdef"],
        security_group="sg-01234567",
        instance_profile="trainer",
        ssh_cidr="203.0.113.0/24",
        ssh_user="admin",
        ssh_port=2222,
        address="private",
    )
    assert made.places == ("eu-west-1", "us-east-1a")
    parameters = read(made.settings)
    assert parameters.subnets == ("subnet-01234567", "subnet-89abcdef")
    assert (parameters.ami, parameters.security_groups) == ("ami-0123456789abcdef0", ("sg-01234567",))
    assert (parameters.instance_profile, parameters.ssh_cidr) == ("trainer", "203.0.113.0/24")
    assert (parameters.ssh_user, parameters.ssh_port, parameters.address) == ("admin", 2222, "private")


def test_what_is_not_given_is_not_said() -> None:
    assert (sky.AWS().places, sky.AWS().settings) == ((), {})
    assert (sky.AWS(region="eu-west-1").places, sky.Sim(region="sim-east").places) == (
        ("eu-west-1",),
        ("sim-east",),
    )


def test_both_sides_know_the_same_parameters() -> None:
    assert set(_AWS_PARAMETERS.values()) == set(CHECKS)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"profile": "work"}, "has no field 'profile'.*It takes: address, ami"),
        ({"regoin": "eu-west-1"}, "did you mean 'region'"),
        ({"parameters": {"sshUsr": "x"}}, "did you mean 'sshUser'"),
        ({"parameters": {"sshUser": "x"}, "ssh_user": "y"}, "sshUser, which is given as a field"),
        ({"region": "a", "regions": ["b"]}, "exclude one another"),
        ({"regions": "eu-west-1"}, "must be a list of strings"),
        ({"ssh_port": 0}, "at least 1"),
        ({"ssh_port": "22"}, "whole number"),
        ({"address": "inside"}, "not one of 'public', 'private'|not one of public, private"),
        ({"subnet": [7]}, "must be a string"),
        ({"ami": ""}, "not valid"),
    ],
)
def test_a_mistake_is_told_by_its_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        sky.AWS(**fields)
