"""The session with one node's machine: connect, bootstrap, link, and again when it breaks.

It runs as one task, owns the only SSH connection to the node, and publishes what it knows as a `SessionView`.
It decides nothing about the node: when it gives up, it says why and ends; the node's reconciler draws the
conclusions. It writes nothing to the API server, so a host key that it saw for the first time waits here
until somebody has made it durable.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncssh

from skyward.contract.meta import clip
from skyward.contract.reasons import NodeReason
from skyward.wire.envelopes import RefusalReason
from skyward_operator.nodes.bootstrap import BootstrapFailed, agent_socket, bootstrap, start_agent
from skyward_operator.nodes.collection import Collector
from skyward_operator.nodes.deadman import DeadMan, SwitchFailed
from skyward_operator.nodes.fleet import ReadyNode
from skyward_operator.nodes.link import SHOWN, AgentLink, LinkClosed, open_link
from skyward_operator.nodes.observation import Agent, Armed, Failure, SessionView, Stage
from skyward_operator.nodes.ssh import CONNECTION_ERRORS, Target, connect, explain, first_contact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from skyward.contract.pool import Worker
    from skyward.wire.frames import Frame
    from skyward_operator.engine.clock import Clock
    from skyward_operator.nodes.checkup import Checkup
    from skyward_operator.nodes.deadman import Switch
    from skyward_operator.nodes.fleet import Fleet, Key
    from skyward_operator.nodes.image import Plan
    from skyward_operator.nodes.log import NodeLog
    from skyward_operator.nodes.received import Received
    from skyward_operator.providers.contract import Address, Metadata

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
FIRST_LINK_PAUSE = 1.0
"""The longest pause until the agent was met once: a machine that boots is paid for and not used yet."""
BOOTSTRAP_TRIES = 3
"""A bootstrap that failed for a passing reason is run again in place: a new machine costs more."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a session is about; it never changes."""

    namespace: str
    name: str
    pool: str
    rank: int
    address: Address
    client_key: asyncssh.SSHKey
    worker: Worker
    operator: str
    epoch: int
    switch: Switch
    largest_result: int | None = None
    """Bytes that one call may return; None: as many as it likes."""
    metadata: Metadata | None = None
    """Where the machine can see that its provider takes it back."""


class Session:
    """One node's session. `start` it once; `close` it when it is not wanted any more."""

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        fleet: Fleet,
        log: NodeLog,
        clock: Clock,
        changed: Callable[[], None],
        *,
        incoming: Path,
        host_key: str | None,
        resume: bool,
        retiring: bool = False,
    ) -> None:
        self._subject = subject
        self._plan = plan
        self._fleet = fleet
        self._log = log
        self._clock = clock
        self._changed = changed
        self._host_key = host_key
        self._pinned = asyncio.Event()
        self._bootstrapped = resume
        self._resume = resume
        self._retiring = retiring
        """The node is on its way down already: it is met for what its agent holds."""
        self._cut = False
        """Whether the last link broke with its connection: an agent that ends closes its own channel only."""
        self._tries = 0
        self._refusal = ""
        """What an agent of another version said."""
        self._ends_at: float | None = None
        """When the machine is taken, as the agent is told, in monotonic seconds."""
        self._link: AgentLink | None = None
        self._collector = Collector(incoming, self)
        self._early: list[Callable[[], None]] | None = []
        """What the agent said before the fleet knew of this link: results follow right behind a welcome."""
        self._task: asyncio.Task[None] | None = None
        now = clock.now()
        self.view = SessionView(Stage.CONNECTING, started=now, progress=now, admitted=resume)

    @property
    def key(self) -> Key:
        """Namespace and name of the node."""
        return self._subject.namespace, self._subject.name

    def own(self, task: asyncio.Task[None]) -> None:
        """Take the task that runs `run`, to end it in `close`."""
        self._task = task

    async def close(self) -> None:
        """End the session and wait for it. The agent goes on."""
        self._fleet.down(self.key)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=5)

    def pin(self, host_key: str) -> None:
        """Accept this host key from now on; it is durable."""
        self._host_key = host_key
        self._pinned.set()

    def admit(self) -> None:
        """Let the node take calls, now and after each reconnection."""
        self._show(admitted=True)
        self._offer()

    def cordon(self, left: float | None) -> None:
        """Take no more calls; `left` are the seconds until the machine is taken, for what runs on it."""
        self._retiring = True
        self._ends_at = None if left is None else self._clock.monotonic() + left
        self._show(cordoned=True)
        self._fleet.cordon(self.key)
        if self._link is not None:
            self._announce(self._link)

    def check(self, checks: Checkup) -> None:
        """Have the agent check the node's health in this way."""
        if self._link is not None:
            self._link.watch_health(checks)
            self._show(watch=checks.digest)

    def drain(self, grace: float, why: str = "") -> None:
        """Take no more calls, and have the agent end once it is idle or after `grace` seconds. `why` is what
        running calls are told, if anything."""
        self._retiring = True
        self._fleet.down(self.key)
        if self._link is None:
            return  # it broke a moment ago: the agent is told once it is linked again
        self._show(draining=True)
        if why:
            self._link.announce(why, grace)
        self._link.stop(grace)

    # the life of a session

    async def run(self) -> None:
        """Keep the node linked until closed, drained, or given up."""
        try:
            await self._keep_linked()
        except BootstrapFailed as failed:
            self._give_up(failed.failure)
        finally:
            self._fleet.down(self.key)
            await self._collector.aclose()

    async def _keep_linked(self) -> None:
        pause = FIRST_PAUSE
        while not self.view.draining:
            began = self._clock.monotonic()
            try:
                await self._trust()
                await self._once()
            except asyncssh.HostKeyNotVerifiable as error:
                text = explain(error, self._subject.address)
                self._give_up(Failure(NodeReason.HOST_KEY_MISMATCH, text, permanent=True))
                return
            except (*CONNECTION_ERRORS, LinkClosed) as error:
                if self.view.stage is Stage.LINKED and self._clock.monotonic() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE  # a link that held; one that breaks at once is not tried in a hurry
                self._broken(explain(error, self._subject.address))
            if self._cut:
                # The agent goes on with its calls. Once it is linked again it is told again to end.
                self._show(draining=False)
            if not self.view.draining:
                await self._clock.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads reconnects
                longest = FIRST_LINK_PAUSE if self.view.agent is None else LONGEST_PAUSE
                pause = min(longest, pause * 2)
        self._show(stage=Stage.ENDED)

    async def _trust(self) -> None:
        """Have a host key that is durable, before anything is sent."""
        if self._host_key is None:
            seen = await first_contact(self._subject.address)
            self._show(stage=Stage.AWAITING_PIN, host_key=seen)
            await self._pinned.wait()

    async def _once(self) -> None:
        """One connection, from its beginning until it is lost."""
        target = Target(self._subject.address, self._host_key or "", self._subject.client_key)
        connection = await connect(target)
        self._early = []
        deadman = DeadMan(connection, self._subject.switch, self, self._clock)
        try:
            self._progress(stage=Stage.CONNECTED)
            self._log.line(f"connected to {self._subject.address.host}:{self._subject.address.port}")
            await self._arm(deadman)
            async with deadman.beating():
                link = await self._reach_agent(connection)
                self._link = link
                reason = await link.watch()
                self._cut = connection.is_closed()
                raise LinkClosed(reason)
        finally:
            self._link = None
            self._collector.detach()
            self._fleet.down(self.key)
            connection.abort()
            with suppress(*CONNECTION_ERRORS):
                await asyncio.wait_for(connection.wait_closed(), 5)

    async def _arm(self, deadman: DeadMan) -> None:
        """Have the switch run before anything else does. A machine that was a node has one, and may hold
        results: what is wrong with its switch keeps nobody from them."""
        if self._bootstrapped or not self._subject.switch.is_wanted:
            return
        try:
            await deadman.arm()
        except SwitchFailed as failed:
            self._tries += 1
            if failed.failure.permanent or self._tries >= BOOTSTRAP_TRIES:
                raise BootstrapFailed(failed.failure) from failed
            raise ConnectionError(str(failed)) from failed

    async def _reach_agent(self, connection: asyncssh.SSHClientConnection) -> AgentLink:
        """A link to an agent that has welcomed us; bootstrap or restart it where needed."""
        socket = None
        if not self._bootstrapped:
            socket = await self._bootstrap(connection)
        socket = socket or await agent_socket(connection) or await self._bootstrap(connection)
        try:
            link = await open_link(connection, socket, self)
        except asyncssh.ChannelOpenError:
            self._log.line("the agent does not answer; starting it")
            await start_agent(connection)
            link = await open_link(connection, socket, self)
        welcome = await self._greet(link)
        if welcome is None or (welcome.get("bundle") != self._plan.bundle and not welcome.get("held")):
            # An agent of another version that runs nothing is replaced; one that runs calls finishes them,
            # unless it cannot even be understood.
            self._log.line("the agent is of another version; replacing it")
            link.close()
            socket = await self._bootstrap(connection)
            link = await open_link(connection, socket, self)
            welcome = await self._greet(link)
        if welcome is None:
            text = f"the agent on the machine is of another version, also after a bootstrap: {self._refusal}"
            raise BootstrapFailed(Failure(NodeReason.AGENT_MISMATCH, text, permanent=False))
        self._welcomed(link, welcome)
        return link

    async def _greet(self, link: AgentLink) -> Mapping[str, Any] | None:
        """The agent's welcome, or None if it speaks another protocol."""
        subject = self._subject
        try:
            return await link.hello(
                subject.operator, subject.epoch, subject.worker, subject.largest_result, subject.metadata
            )
        except LinkClosed as closed:
            if str(closed).startswith(RefusalReason.PROTOCOL):
                self._refusal = str(closed).removeprefix(f"{RefusalReason.PROTOCOL}: ")
                return None
            raise

    async def _bootstrap(self, connection: asyncssh.SSHClientConnection) -> str:
        """Make the machine a node. Returns the agent's socket."""
        self._progress(stage=Stage.BOOTSTRAPPING, step="upload", step_began=self._clock.now())
        while True:
            try:
                facts = await bootstrap(connection, self._plan, self)
            except BootstrapFailed as failed:
                self._tries += 1
                if failed.failure.permanent or self._tries >= BOOTSTRAP_TRIES:
                    raise
                self._log.line(f"failed: {failed}; trying again")
                await self._clock.sleep(2.0**self._tries)
            else:
                self._bootstrapped = True
                self._tries = 0
                return facts["socket"]

    # what it hears; the fleet learns of the node first, and of what its agent says after that

    def step(self, name: str) -> None:
        """A step of the bootstrap begins."""
        self._progress(step=name, step_began=self._clock.now())

    def line(self, text: str) -> None:
        """A line of the bootstrap's output."""
        self._log.line(text)
        if not text.startswith("::"):
            self.view = replace(self.view, last_line=text, progress=self._clock.now())

    def armed(self, keeper: str, ttl: int) -> None:
        """The dead-man's switch runs."""
        self._log.line(f"the dead-man's switch is kept by {keeper}, ttl {ttl} s")
        self._show(switch=Armed(keeper, ttl))

    def started(self, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        self._tell(lambda: self._fleet.listener.started(*self.key, header))

    def log(self, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        self._tell(lambda: self._fleet.listener.log(*self.key, header, body))

    def result(self, header: Mapping[str, Any], body: bytes) -> None:
        """A whole result, or a refusal."""
        self._collector.forget(str(header["attempt"]))
        self._tell(lambda: self._fleet.listener.result(*self.key, header, body))

    def streamed(self, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        self._tell(lambda: self._fleet.listener.streamed(*self.key, frame))

    def announced(self, header: Mapping[str, Any]) -> None:
        """A large result waits at the agent: fetched, unless nobody wants it."""

        def announce() -> None:
            if self._fleet.listener.announced(*self.key, header):
                self._collector.announce(header)

        self._tell(announce)

    def piece(self, header: Mapping[str, Any], body: bytes) -> None:
        """Some bytes of a large result."""
        self._collector.piece(header, body)

    def arrived(self, header: Mapping[str, Any], body: Received | bytes) -> None:
        """A large result is whole, or cannot be had."""
        self._tell(lambda: self._fleet.listener.result(*self.key, header, body))

    def stalled(self, attempt: str, trouble: str | None) -> None:
        """Why a large result does not come; None when it comes again."""
        self._tell(lambda: self._fleet.listener.stalled(*self.key, attempt, trouble))

    def noticed(self, left: float) -> None:
        """The machine itself says that it will be taken in so many seconds. The first word counts."""
        if self.view.notice is None:
            self._log.line(f"the machine says that its provider takes it back in {left:.0f} s")
            self._show(notice=self._clock.now() + timedelta(seconds=left))

    def fell_ill(self, ill: str) -> None:
        """The node failed its health check, or is well again."""
        if ill != self.view.ill:
            self._log.line(f"the node is not well: {ill}" if ill else "the node is well again")
            self._show(ill=ill)

    def heard(self) -> None:
        """The agent gave a sign of life."""
        self.view = replace(self.view, heard=self._clock.now())

    def _tell(self, tell: Callable[[], None]) -> None:
        if self._early is None:
            tell()
        else:
            self._early.append(tell)

    # what it says

    def _welcomed(self, link: AgentLink, welcome: Mapping[str, Any]) -> None:
        agent = Agent(
            boot_id=str(welcome["boot_id"]),
            python=str(welcome["python"]),
            version=str(welcome["agent"]),
            slots=int(welcome["slots"]),
            held={each["attempt"]: each["state"] for each in welcome.get("held", ())},
            counts={each["attempt"]: each["count"] for each in welcome.get("held", ()) if "count" in each},
            facts=welcome.get("facts", {}),
        )
        self._link = link
        self._collector.attach(link, agent.held)
        self._log.line(f"linked with agent {agent.boot_id}, Python {agent.python}, {agent.slots} slots")
        self._progress(
            stage=Stage.LINKED,
            agent=agent,
            lost=None,
            trouble="",
            heard=self._clock.now(),
            watch=str(welcome.get("watch") or ""),
            ill=clip(str(welcome.get("ill") or ""), SHOWN),
        )
        self._announce(link)
        self._offer()
        if welcome.get("left") is not None:
            self.noticed(float(welcome["left"]))

    def _announce(self, link: AgentLink) -> None:
        """Have calls know how long their machine is there. An agent that knows it already does nothing."""
        if self._ends_at is not None:
            link.announce("preempted", max(0.0, self._ends_at - self._clock.monotonic()))

    def _offer(self) -> None:
        """Show the node to the fleet, if it is linked and admitted."""
        view, link = self.view, self._link
        if view.stage is not Stage.LINKED or not view.admitted or view.draining:
            return
        if link is None or view.agent is None or self._fleet.link(*self.key) is link:
            return
        subject, agent = self._subject, view.agent
        node = ReadyNode(
            namespace=subject.namespace,
            name=subject.name,
            pool=subject.pool,
            rank=subject.rank,
            slots=agent.slots,
            python=agent.python,
            address=subject.address.host,
            boot_id=agent.boot_id,
            held=agent.held,
            counts=agent.counts,
            draining=self._retiring,
        )
        self._fleet.up(self.key, node, link)
        early, self._early = self._early or [], None
        for tell in early:
            tell()

    def _broken(self, trouble: str) -> None:
        """The connection failed or was lost."""
        lost = self.view.lost
        if lost is None and self.view.agent is not None:
            lost = self._clock.now()
        if trouble != self.view.trouble:
            self._log.line(trouble)
        elif lost is None and self.view.stage is Stage.CONNECTING:
            return  # a machine that boots still refuses: nobody has to look at the node for that
        self._show(stage=Stage.CONNECTING, lost=lost, trouble=trouble)

    def _give_up(self, failure: Failure) -> None:
        self._log.line(f"given up: {failure.message}")
        self._show(stage=Stage.ENDED, failure=failure)

    def _progress(self, **changes: Any) -> None:
        self._show(progress=self._clock.now(), **changes)

    def _show(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._changed()
