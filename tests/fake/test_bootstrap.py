"""bootstrap.sh, run for real over real SSH on local machines."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.machines import Lab, lab

from skyward.contract.image import Image
from skyward.contract.pool import Worker
from skyward.contract.reasons import NodeReason
from skyward.wire.bundle import bundle
from skyward_operator.nodes.bootstrap import BootstrapFailed, agent_socket, bootstrap
from skyward_operator.nodes.image import plan
from skyward_operator.providers.conformance import gone

if TYPE_CHECKING:
    import asyncssh

    from skyward_operator.nodes.image import Plan

PYTHON = "{}.{}".format(*__import__("sys").version_info[:2])


@dataclass
class Recorder:
    """Remembers what a bootstrap said."""

    steps: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        """A step begins."""
        self.steps.append(name)

    def line(self, text: str) -> None:
        """A line of output."""
        self.lines.append(text)


def made(**image: Any) -> Plan:
    """What is sent for an image."""
    return plan(Image.read({"python": PYTHON, **image}), Worker(), bundle())


async def out(connection: asyncssh.SSHClientConnection, command: str) -> str:
    """The output of a command that must succeed."""
    return str((await connection.run(command, check=True)).stdout)


async def test_a_machine_becomes_a_node_and_again_is_harmless_and_quick() -> None:
    image = {"pip": ["six"], "env": [{"name": "GREETING", "value": "it's $5"}]}
    async with lab() as place, place.connection(await place.machine()) as connection:
        first, second = Recorder(), Recorder()
        facts = await bootstrap(connection, made(**image), first)
        assert first.steps == ["workdir", "uv", "python", "packages", "env", "runtime", "agent"]
        pid = await out(connection, "pgrep -u $(id -u) -f 'skyward.agent.*'$HOME | sort | head -1")

        assert await bootstrap(connection, made(**image), second) == facts
        assert not any("Installed" in line for line in second.lines)
        assert await out(connection, "pgrep -u $(id -u) -f 'skyward.agent.*'$HOME | sort | head -1") == pid
        assert await agent_socket(connection) == facts["socket"]

        assert await out(connection, "ls -d $SKYWARD_ENVIRONMENTS/*/ | wc -l") == "1\n"
        await connection.run(
            "$SKYWARD_ENVIRONMENTS/*/bin/python -c 'import six, cloudpickle, lz4'", check=True
        )
        modes = await out(connection, "stat -c '%a' .skyward .skyward/variables")
        assert modes.split() == ["700", "600"]


async def test_machines_with_the_same_image_share_its_environment_even_when_made_at_once() -> None:
    async def prepare(place: Lab) -> list[str]:
        async with place.connection(await place.machine()) as connection:
            recorder = Recorder()
            await bootstrap(connection, made(pip=["six", "idna"]), recorder)
            await connection.run("$SKYWARD_ENVIRONMENTS/*/bin/python -c 'import six, idna'", check=True)
            return recorder.lines

    async with lab() as place:
        together = await asyncio.gather(prepare(place), prepare(place))
        later = await prepare(place)
    installed = [any(line.startswith("Installed") for line in lines) for lines in (*together, later)]
    assert sorted(installed) == [False, False, True]
    assert not installed[2]


async def test_values_are_never_arguments() -> None:
    secret = secrets.token_hex(16)
    image = made(
        env=[{"name": "TOKEN", "value": secret}],
        # Looks at all command lines while the bootstrap runs, and leaves what it finds in a file.
        shellVars=[
            {
                "name": "SEEN",
                "command": f"cat /proc/[0-9]*/cmdline | grep -ac '{secret[:8]}[0-9a-f]' >>$HOME/seen; true",
            }
        ],
    )
    async with lab() as place, place.connection(await place.machine()) as connection:
        recorder = Recorder()
        await bootstrap(connection, image, recorder)
        assert not any(secret in line for line in recorder.lines)
        assert await out(connection, ". .skyward/variables; echo $TOKEN") == f"{secret}\n"
        assert set((await out(connection, "cat seen")).split()) == {"0"}


@pytest.mark.parametrize(
    ("image", "reason", "message"),
    [
        (
            {"pip": ["no-such-package-4711"]},
            NodeReason.PACKAGE_NOT_FOUND,
            "pip: no-such-package-4711 was not found in the package registry",
        ),
        ({"pip": ["six==99.99"]}, NodeReason.PACKAGE_NOT_FOUND, "pip: there is no version of six==99.99"),
        ({"python": "3.98"}, NodeReason.PYTHON_NOT_FOUND, "python: No interpreter found for Python 3.98"),
        (
            {"shellVars": [{"name": "X", "command": "echo so; echo much >&2; exit 7"}]},
            NodeReason.IMAGE_REJECTED,
            "a command of image.shellVars failed; much; so; the command of X ended with status 7",
        ),
    ],
)
async def test_what_cannot_be_had_fails_for_good_and_says_what(
    image: dict[str, Any], reason: NodeReason, message: str
) -> None:
    async with lab() as place, place.connection(await place.machine()) as connection:
        with pytest.raises(BootstrapFailed) as caught:
            await bootstrap(connection, made(**image), Recorder())
    failure = caught.value.failure
    assert failure.reason == reason
    assert failure.permanent
    assert message in failure.message


async def test_an_unknown_apt_package_is_named() -> None:
    async with lab() as place, place.connection(await place.machine()) as connection:
        with pytest.raises(BootstrapFailed) as caught:
            await bootstrap(connection, made(apt=["no-such-package-4711"]), Recorder())
    assert caught.value.failure.reason == NodeReason.PACKAGE_NOT_FOUND
    assert caught.value.failure.message == "apt: Unable to locate package no-such-package-4711"


async def test_an_installed_apt_package_costs_nothing() -> None:
    recorder = Recorder()
    async with lab() as place, place.connection(await place.machine()) as connection:
        await bootstrap(connection, made(apt=["bash"]), recorder)
    assert "apt" in recorder.steps
    assert not any("Reading package lists" in line for line in recorder.lines)


async def test_an_interrupted_environment_is_made_anew() -> None:
    async with lab() as place:
        first = await place.machine()
        async with place.connection(first) as connection:
            await bootstrap(connection, made(), Recorder())
        await gone(place.provider, first.id, first.token)
        async with place.connection(await place.machine()) as connection:
            undo = "rm .complete && rm -r lib/python*/site-packages/lz4"
            await out(connection, f"cd $SKYWARD_ENVIRONMENTS/*/ && {undo}")
            await bootstrap(connection, made(), Recorder())
            await connection.run("$SKYWARD_ENVIRONMENTS/*/bin/python -c 'import lz4.frame'", check=True)
