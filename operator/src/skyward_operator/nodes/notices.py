"""Asks the providers which machines they will take back, one question per account for all of its nodes.

Only accounts with spot machines are asked, and only where the provider has an answer. What is heard is
remembered for the node and its reconciler is called; the node's own agent may have said it before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from skyward.contract.names import NODE
from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NodePhase
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, chosen
from skyward_operator.nodes.book import Account
from skyward_operator.providers.contract import TAG_INSTALLATION
from skyward_operator.providers.errors import ProviderError, RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skyward_operator.context import Context
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.fleet import Key
    from skyward_operator.nodes.observe import Observer
    from skyward_operator.providers.contract import Notice

logger = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two questions: of two minutes of notice little is lost."""
_HEARS: Final = (NodePhase.CONNECTING, NodePhase.BOOTSTRAPPING, NodePhase.READY)

type Machines = dict[str, tuple[Key, str]]
"""By id of the machine: its node, and the node's uid."""


class Notices:
    """The loop over accounts. `run` it while the operator leads."""

    def __init__(
        self, context: Context, accounts: Accounts, observer: Observer, changed: Callable[[Key], None]
    ) -> None:
        self._context = context
        self._accounts = accounts
        self._observer = observer
        self._changed = changed
        self._quiet_until: dict[Account, float] = {}
        """Accounts that asked for a pause, in monotonic seconds."""
        self._troubled: set[Account] = set()
        self._sellers: dict[str, Account] = {}
        """Where each node's machine was bought, by the node's uid: read once, there are hundreds."""

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.round()
            await self._context.clock.sleep(EVERY)

    async def round(self) -> None:
        """Ask every account that has spot machines, side by side."""
        async with asyncio.TaskGroup() as group:
            for account, machines in self._bought().items():
                if self._context.clock.monotonic() >= self._quiet_until.get(account, 0.0):
                    group.create_task(self._ask(account, machines))

    def _bought(self) -> Mapping[Account, Machines]:
        """The spot machines of all nodes that can still be told, by account."""
        found: defaultdict[Account, Machines] = defaultdict(dict)
        before, self._sellers = self._sellers, {}
        for obj in self._context.store.list(NODE):
            status = obj.get("status") or {}
            offer = (status.get("launch") or {}).get("offer") or {}
            machine = status.get("providerId")
            if offer.get("market") != "spot" or machine is None or status.get("phase") not in _HEARS:
                continue
            metadata = obj["metadata"]
            uid = metadata["uid"]
            account = before.get(uid) or Account.of(metadata["namespace"], chosen(ComputeNode.read(obj)))
            self._sellers[uid] = account
            found[account][machine] = (metadata["namespace"], metadata["name"]), uid
        return found

    async def _ask(self, account: Account, machines: Machines) -> None:
        try:
            provider = await self._accounts.of(account)
            if provider.capabilities.interruption_notice_seconds is None:
                return
            async with asyncio.timeout(PROVIDER_SECONDS):
                notices = await provider.interruptions(
                    {TAG_INSTALLATION: self._context.leadership.installation}
                )
        except RateLimited as limited:
            self._quiet_until[account] = self._context.clock.monotonic() + (limited.retry_after or EVERY)
        except (NoAccount, ProviderError, TimeoutError) as error:
            self._trouble(account, error)
        else:
            self._troubled.discard(account)
            for notice in notices:
                self._tell(notice, machines)

    def _tell(self, notice: Notice, machines: Machines) -> None:
        key, uid = machines.get(notice.machine_id, (None, ""))
        if key is None:
            return
        memory = self._observer.memory_of(uid)
        if memory.notice is None:
            memory.notice = notice.at
            self._changed(key)

    def _trouble(self, account: Account, error: Exception) -> None:
        """Said once, until the account answers again."""
        if account not in self._troubled:
            self._troubled.add(account)
            text = "%s does not say which machines it takes back: %s"
            logger.warning(text, account, str(error) or "no answer in time")
