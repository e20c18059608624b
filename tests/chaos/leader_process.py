"""An operator process whose only work is to sign a Task, many times a second, for as long as it may act.

It is the real operator around one part of its own: `python leader_process.py NAME NAMESPACE run --flags…`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from skyward.contract.names import TASK
from skyward_operator.__main__ import parse
from skyward_operator.kube import kubeconfig
from skyward_operator.logging import set_up
from skyward_operator.main import Operator, Parts

if TYPE_CHECKING:
    from skyward_operator.context import Context


def main() -> None:
    """Run until SIGTERM; exits as the operator does."""
    name, namespace = sys.argv[1:3]
    settings = parse(sys.argv[3:], os.environ)
    set_up(settings.log_format, settings.log_level)
    settings.data_dir.mkdir(parents=True, exist_ok=True)

    def wire(context: Context) -> Parts:
        async def sign() -> None:
            number = 0
            while True:
                number += 1
                status = {"phase": "Running", "message": f"{name} {number}"}
                await context.api.patch_status(TASK, namespace, "signed", status)
                await asyncio.sleep(0.02)

        async def url() -> str:
            return f"http://{name}.invalid"

        return Parts({"signing": sign}, url)

    credentials = kubeconfig.load(settings.kubeconfig)
    sys.exit(asyncio.run(Operator(settings, credentials, wire).run()))


if __name__ == "__main__":
    main()
