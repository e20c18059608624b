"""`skyward local`: start, look at and stop the embedded control plane.

What a command works with is imported when it runs: other commands need neither processes nor locks.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyward.console import Subject, open_console
from skyward.local.home import COMPONENTS, Home

if TYPE_CHECKING:
    from skyward.local.progress import Report
    from skyward.local.status import Component, Status

app = typer.Typer(help="The embedded control plane of this computer.", no_args_is_help=True)

NOT_RUNNING = 3
LOGS = ("supervisor", *COMPONENTS)
_FOLLOW_SECONDS = 0.2
_QUIET_SECONDS = 0.5


@app.command()
def up() -> None:
    """Start the control plane, or join the one that runs; prints where it is."""
    from skyward.local import plane

    begun = time.monotonic()
    with _shown() as report:
        endpoint = plane.ensure(report)
    seconds = time.monotonic() - begun
    print(f"✔ control plane ready at {endpoint.server} ({seconds:.1f} s)")
    print(f"  kubectl:  kubectl --kubeconfig {endpoint.kubeconfig} get skp,skn,skt")
    print("  stop it:  skyward local down")


@app.command()
def status() -> None:
    """Show what runs. The exit status is 0 when it serves, and 3 when it does not."""
    from skyward.local import plane
    from skyward.local.status import State, read_status

    home = Home.locate()
    known = read_status(home)
    alive = known is not None and known.is_alive
    endpoint = plane.find() if alive else None
    if known is None or not alive:
        print(f"not running (folder {home.root}){_last_words(known)}")
        _warn_of_disk(home)
        raise typer.Exit(NOT_RUNNING)
    state = known.state if endpoint or known.state is not State.READY else "the API server does not answer"
    print(f"{state}: {known.server}, skyward {known.skyward}, up {_duration(known.seconds_up)}")
    for component in known.components:
        print(f"  {_describe(component)}")
    if known.gateway:
        print(f"  gateway {known.gateway}, health {known.health}")
    print(f"  folder {home.root}")
    _warn_of_disk(home)
    if endpoint is None:
        raise typer.Exit(NOT_RUNNING)


@app.command()
def logs(
    component: Annotated[
        str | None, typer.Argument(metavar="[COMPONENT]", help=f"One of {', '.join(LOGS)}.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and print what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of each log to begin with.")] = 20,
) -> None:
    """Print the newest lines of the control plane's logs."""
    from skyward.local.processes import tail

    if component is not None and component not in LOGS:
        raise typer.BadParameter(f"{component!r} is none of {', '.join(LOGS)}")
    names = [component] if component else list(LOGS)
    files = {name: Home.locate().log(name) for name in names}
    offsets = {name: _size(file) for name, file in files.items()}
    for name, file in files.items():
        for line in tail(file, lines).splitlines():
            print(_prefixed(name, line, names))
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            for name, file in files.items():
                for line in _new_lines(file, offsets, name):
                    print(_prefixed(name, line, names), flush=True)
            time.sleep(_FOLLOW_SECONDS)


@app.command()
def down(
    force: Annotated[
        bool, typer.Option("--force", help="Stop even though machines that cost money run on.")
    ] = False,
) -> None:
    """Delete the pools that have local machines, stop the control plane, and keep its data.

    It refuses while machines that cost money exist.
    """
    from skyward.local import ending

    with _shown() as report:
        ended = ending.down(report, force=force)
    print("✔ control plane stopped; its data are kept" if ended.was_running else "it was not running")
    if ended.deleted_pools:
        print(f"  pools with local machines were deleted: {', '.join(ended.deleted_pools)}")
    for machine in ended.left_machines:
        print(f"  ⚠ left without anybody who looks after it: {machine}")
    for process in ended.left_processes:
        print(f"  ⚠ still running: {process}")
    if ended.left_machines:
        print("  `skyward local up` takes care of them again")


@app.command()
def kubeconfig(
    path: Annotated[bool, typer.Option("--path", help="Print the name of the file instead.")] = False,
) -> None:
    """Print the kubeconfig of the control plane, for kubectl and other tools."""
    from skyward.local import plane
    from skyward.local.errors import NotRunning

    endpoint = plane.find()
    if endpoint is None:
        raise NotRunning(Home.locate().root)
    print(endpoint.kubeconfig if path else endpoint.kubeconfig.read_text().rstrip())


@contextlib.contextmanager
def _shown() -> "Iterator[Report]":
    """Show progress the way every command does: one live line on a terminal, a few lines elsewhere."""
    console = open_console()
    subject = Subject("control plane")
    try:
        yield lambda step: console.update(
            subject, f"{step.name}: {step.detail}" if step.detail else step.name, after=_QUIET_SECONDS
        )
    finally:
        console.clear()
        console.close()


def _warn_of_disk(home: Home) -> None:
    if home.shortage:
        print(f"  ⚠ {home.shortage}")


def _last_words(known: "Status | None") -> str:
    from skyward.local.status import State

    if known is None or known.state is State.STOPPED:
        return ""
    return (
        f"\n  it failed: {known.error}"
        if known.error
        else "\n  it was killed, without stopping the rest; run `skyward local up` to go on with its data"
    )


def _describe(component: "Component") -> str:
    import psutil

    process = component.identity.process() if component.identity else None
    text = f"{component.name:<15} {component.state:<11}"
    if process is not None:
        with contextlib.suppress(psutil.Error):
            text += f" pid {process.pid:<8} {process.memory_info().rss / 1e6:.0f} MB"
    if component.restarts:
        again = "once" if component.restarts == 1 else f"{component.restarts} times"
        text += f"  started again {again} (last: {component.last_exit})"
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _prefixed(name: str, line: str, names: list[str]) -> str:
    return line if len(names) == 1 else f"[{name}] {line}"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _new_lines(file: Path, offsets: dict[str, int], name: str) -> Iterator[str]:
    """Yield whole lines behind the offset; a log that was cut down begins anew."""
    size = _size(file)
    if size < offsets[name]:
        offsets[name] = 0
    if size == offsets[name]:
        return
    with file.open("rb") as opened:
        opened.seek(offsets[name])
        data = opened.read()
    whole = data.rfind(b"\n") + 1
    offsets[name] += whole
    yield from data[:whole].decode(errors="replace").splitlines()
