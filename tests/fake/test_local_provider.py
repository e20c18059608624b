"""The local provider: it keeps the contract, and its machines are what they claim to be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncssh
import psutil
import pytest
from tests.fake.machines import SERVERS, ensure_sshd, lab

from skyward.contract.hardware import Candidate
from skyward_operator.nodes.ssh import Target, connect, first_contact
from skyward_operator.providers.conformance import ProviderConformance, Subject, running, until
from skyward_operator.providers.contract import MachineState, Setup
from skyward_operator.providers.errors import Rejected
from skyward_operator.providers.local.processes import find
from skyward_operator.providers.local.provider import LocalProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module", autouse=True)
def sshd() -> None:
    """OpenSSH's server is here."""
    ensure_sshd()


def candidate(**fields: Any) -> Candidate:
    """A candidate of the local provider."""
    return Candidate.read({"name": "main", "provider": "local", **fields})


class TestLocalProvider(ProviderConformance):
    """The contract."""

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        async with lab() as place:
            yield Subject(
                provider=place.provider,
                request=place.request,
                good=candidate(),
                impossible=candidate(accelerator={"name": "H100"}),
                unknown_id="local-000000000000",
                again=lambda: LocalProvider(Setup(place.root)),
            )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"accelerator": {"name": "H100"}}, "accelerator"),
        ({"market": "spot"}, "market"),
        ({"regions": ["eu"]}, "regions"),
        ({"instanceTypes": ["g5.xlarge"]}, "instanceTypes"),
        ({"vcpus": 4096}, "vcpus"),
        ({"memoryGiB": 65536}, "memoryGiB"),
        ({"parameters": {"sshServer": "dropbear"}}, "parameters.sshServer"),
        ({"parameters": {"colour": "red"}}, "colour"),
    ],
)
async def test_what_this_computer_lacks_is_refused_by_field(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(Rejected, match=says):
        await LocalProvider(Setup(tmp_path)).offers(candidate(**fields))


@pytest.mark.parametrize("server", SERVERS)
async def test_a_command_runs_in_the_machine_and_nowhere_else(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_SECRET", "4711")
    async with lab() as place:
        machine = await place.machine(server)
        async with place.connection(machine) as connection:
            shown = await connection.run("pwd; env; echo oops >&2; exit 3")
            assert shown.exit_status == 3
            assert shown.stderr == "oops\n"
            lines = str(shown.stdout).splitlines()
            home = str(place.root / "vms" / machine.id / "home")
            assert lines[0] == home
            assert f"HOME={home}" in lines
            assert f"SKYWARD_VM={machine.id}" in lines
            assert "OPERATOR_SECRET" not in str(shown.stdout)


@pytest.mark.parametrize("server", SERVERS)
async def test_bytes_arrive_whole_and_status_and_signal_are_told(server: str) -> None:
    data = os.urandom(3 * 1024 * 1024)
    async with lab() as place:
        machine = await place.machine(server)
        async with place.connection(machine) as connection:
            stored = await connection.run("cat > file && wc -c < file", input=data, encoding=None)
            assert stored.exit_status == 0
            assert int(bytes(stored.stdout or b"")) == len(data)  # type: ignore[arg-type]
            back = await connection.run("cat file", encoding=None)
            assert back.stdout == data
            killed = await connection.run("kill -9 $$")
            assert killed.exit_signal is not None
            assert killed.exit_signal[0] == "KILL"
            async with connection.start_sftp_client() as sftp:
                assert await sftp.getsize("file") == len(data)


@pytest.mark.parametrize("server", SERVERS)
async def test_only_the_ordered_key_and_the_own_host_key_are_good(server: str) -> None:
    async with lab() as place:
        machine, other = await place.machine(server), await place.machine(server)
        assert machine.address is not None
        assert machine.host_key is not None
        assert await first_contact(machine.address) == machine.host_key
        assert other.host_key != machine.host_key
        stranger = asyncssh.generate_private_key("ssh-ed25519")
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(Target(machine.address, machine.host_key, stranger))
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await connect(Target(machine.address, str(other.host_key), place.key))


@pytest.mark.parametrize("server", SERVERS)
async def test_terminate_leaves_no_process_not_even_one_that_hides(server: str) -> None:
    async with lab() as place:
        machine = await place.machine(server)
        async with place.connection(machine) as connection:
            hide = "setsid {} sleep 4711 </dev/null >/dev/null 2>&1 &"
            await connection.run(hide.format("env -i") + " " + hide.format(""))

            async def both_sleep() -> list[int]:
                found = [process.pid for process in find(machine.id, vm_pid(place.root, machine.id))]
                return found if [_name(pid) for pid in found].count("sleep") == 2 else []

            processes = await until(both_sleep)
        while not await place.provider.terminate(machine.id, machine.token):
            pass
        assert not any(alive(pid) for pid in [*processes])
        assert not (place.root / "vms" / machine.id).exists()


async def test_a_machine_outlives_whoever_made_it() -> None:
    async with lab() as place:
        key = place.key.export_public_key("openssh").decode()
        script = (
            "import asyncio, pathlib, sys\n"
            "from skyward_operator.providers.contract import CreateRequest, Setup\n"
            "from skyward_operator.providers.local.provider import LocalProvider, this_computer\n"
            "provider = LocalProvider(Setup(pathlib.Path(sys.argv[1])))\n"
            "request = CreateRequest(this_computer('m'), 'tok', 'n', {'a': 'b'}, sys.argv[2])\n"
            "asyncio.run(provider.create(request))\n"
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        maker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(place.root), key)
        assert await maker.wait() == -signal.SIGKILL
        (machine,) = (await place.provider.list({"a": "b"})).machines
        async with place.connection(await running(place.provider, machine.id)) as connection:
            assert (await connection.run("echo here")).stdout == "here\n"


async def test_a_machine_whose_process_died_is_gone_and_its_rest_can_be_ended() -> None:
    async with lab() as place:
        machine = await place.machine()
        async with place.connection(machine) as connection:
            await connection.run("setsid sleep 4712 </dev/null >/dev/null 2>&1 &")
            os.kill(vm_pid(place.root, machine.id), signal.SIGKILL)

        async def dead() -> bool:
            seen = await place.provider.describe(machine.id)
            return seen is not None and seen.state is MachineState.GONE

        await until(dead)
        assert find(machine.id, None)
        while not await place.provider.terminate(machine.id, machine.token):
            pass
        assert not find(machine.id, None)


async def test_a_token_is_good_for_one_machine_ever() -> None:
    async with lab() as place:
        request = place.request("once")
        machine = await place.provider.create(request)
        while not await place.provider.terminate(machine.id, "once"):
            pass
        with pytest.raises(Rejected, match="no second one"):
            await place.provider.create(request)


async def test_a_create_that_was_cut_off_is_completed_by_the_next() -> None:
    async with lab() as place:
        request = place.request("cut")
        machine = await place.provider.create(request)
        os.kill((await started(place.root, machine.id)), signal.SIGKILL)
        (place.root / "vms" / machine.id / "vm.json").unlink()
        (place.root / "vms" / machine.id / "alive").unlink()  # as if the crash came before the start
        again = await place.provider.create(request)
        assert again.id == machine.id
        await running(place.provider, again.id)


async def test_a_machine_ends_itself_when_its_folder_is_gone() -> None:
    async with lab() as place:
        machine = await place.machine()
        pid = vm_pid(place.root, machine.id)
        (place.root / "vms" / machine.id / "record.json").unlink()

        async def ended() -> bool:
            return not alive(pid)

        await until(ended)


async def started(root: Path, machine_id: str) -> int:
    """The process of a machine, once it has said so."""

    async def look() -> bool:
        return (root / "vms" / machine_id / "vm.json").exists()

    await until(look)
    return vm_pid(root, machine_id)


def vm_pid(root: Path, machine_id: str) -> int:
    """The machine's own process."""
    from skyward_operator.providers.local.folder import Folder

    running = Folder(root / "vms", machine_id).running()
    assert running is not None
    return running.pid


def alive(pid: int) -> bool:
    """Whether a process runs, zombies aside."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""
