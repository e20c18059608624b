"""One round of the sweep after the other: look, decide, act, report."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from skyward_operator.kube.errors import ApiError
from skyward_operator.sweep.act import Broom
from skyward_operator.sweep.decide import decide
from skyward_operator.sweep.findings import Findings
from skyward_operator.sweep.look import list_machines, list_owners
from skyward_operator.sweep.observation import Observation, Rules
from skyward_operator.sweep.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward_operator.context import Context
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.book import Account, Book
    from skyward_operator.nodes.reconcile import Nodes
    from skyward_operator.sweep.decide import Verdict
    from skyward_operator.sweep.look import Listed, Owners
    from skyward_operator.sweep.observation import Memory

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 24 * 3600.0
"""An account that nothing uses any more is looked through for so long after its last order."""


class Sweep:
    """All accounts of this installation. What it remembers is lost with the process: then it watches anew."""

    def __init__(self, context: Context, accounts: Accounts, book: Book) -> None:
        self._context = context
        self._accounts = accounts
        self._book = book
        self._rules = Rules(margin=context.settings.sweep_margin_seconds)
        self._broom = Broom(context)
        self._report = Report(context)
        self._memories: dict[Account, Memory] = {}
        self._looking = asyncio.Lock()
        self._empty: dict[Account, float] = {}
        """When accounts that nothing uses were last seen to have no machine, in monotonic seconds."""

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.round()
            except ApiError as error:
                logger.warning("nothing was looked through for machines without a node: %s", error)
            await self._context.clock.sleep(self._context.settings.sweep_seconds)

    async def rehearse(self) -> Findings:
        """What a round would end now. Changes nothing, and remembers nothing. Raises ApiError where nodes
        cannot be read."""
        async with self._looking:
            listings, owners = await self._look()
            found = Findings()
            for listed in listings:
                found.add(listed, self._verdict(listed, owners) if listed.provider is not None else None)
            return found

    async def round(self, allowed: int = 0) -> Findings:
        """One look at every account. A person allows so many machines to be ended at once, besides those that
        are few enough. Raises ApiError, and ends nothing, where nodes cannot be read."""
        async with self._looking:
            return await self._round(allowed)

    async def _round(self, allowed: int) -> Findings:
        began = self._context.clock.monotonic()
        listings, owners = await self._look()
        looked = [
            (each, await self._judge(each, owners, allowed)) for each in listings if each.provider is not None
        ]
        if self._book.allowance and any(verdict.end for _, verdict in looked):
            await self._book.spend_allowance()
        for listed in listings:
            await self._tidy(listed, owners, began)
        self._tell(listings, owners)
        self._report.counted(looked, sum(not each.complete for each in listings))
        # As long as a node is there its account is in use, whoever struck it out.
        await self._book.note(owners.used)
        found, verdicts = Findings(), {each.account: verdict for each, verdict in looked}
        for listed in listings:
            found.add(listed, verdicts.get(listed.account))
        return found

    async def _look(self) -> tuple[Sequence[Listed], Owners]:
        """What all accounts list, and after that the nodes and pools that there are."""
        accounts = await self._book.accounts()
        installation = self._context.leadership.installation
        listings = await list_machines(self._accounts, accounts, installation)
        return listings, await list_owners(self._context)

    def _verdict(self, listed: Listed, owners: Owners, allowed: int = 0) -> Verdict:
        assert listed.provider is not None  # noqa: S101 - only accounts that answered are judged
        seen = Observation(
            listed.machines,
            listed.complete,
            owners.nodes,
            listed.provider.capabilities.visibility_seconds,
            frozenset(self._context.settings.namespaces),
            max(allowed, self._book.allowance),
            self._memories.get(listed.account, {}),
        )
        return decide(seen, self._context.clock.monotonic(), self._rules)

    async def _judge(self, listed: Listed, owners: Owners, allowed: int) -> Verdict:
        account, provider = listed.account, listed.provider
        assert provider is not None  # noqa: S101 - only accounts that answered are judged
        before = self._memories.get(account, {})
        verdict = self._verdict(listed, owners, allowed)
        for orphan in verdict.end:
            known = before.get(orphan.machine.id)
            if known is None or not known.ending:
                self._report.ended(account, orphan)
            await self._broom.end(account, provider, orphan)
        if verdict.blocked:
            self._report.blocked(account, verdict)
        elif listed.complete:
            self._report.unblocked(account)
        for pool in verdict.cleared - owners.pools:
            await self._broom.clear_pool(account, provider, pool)
        self._memories[account] = verdict.memory
        return verdict

    async def _tidy(self, listed: Listed, owners: Owners, began: float) -> None:
        """Forget an account that nothing uses once it has been empty for long."""
        account = listed.account
        if account in owners.wanted or listed.machines:
            self._empty.pop(account, None)
            return
        if listed.complete and listed.provider is not None:
            if await self._broom.clear(account, listed.provider):
                self._empty[account] = began
                await self._forget(account, began - REMEMBERED_SECONDS)
        elif account in self._empty and account.secret:
            # It was empty when it was last seen; whoever removed its Secret has no more use for it.
            await self._forget(account, self._empty[account])

    async def _forget(self, account: Account, unused_since: float) -> None:
        if await self._book.forget(account, unused_since):
            logger.info(
                "%s has nothing of this installation any more; it is not looked through again", account
            )
            self._memories.pop(account, None)
            self._empty.pop(account, None)
            self._report.well(account)

    def _tell(self, listings: Sequence[Listed], owners: Owners) -> None:
        for listed in listings:
            if listed.complete:
                self._report.well(listed.account)
            else:
                self._report.trouble(listed, wanted=listed.account in owners.wanted)


def build(context: Context, nodes: Nodes) -> Sweep:
    """The sweep of an operator whose nodes' part is this one: accounts are opened once for both."""
    return Sweep(context, nodes.accounts, nodes.book)
