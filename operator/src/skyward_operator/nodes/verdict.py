"""Why a bootstrap failed, from the last lines it said. Pure.

Two questions matter: would the same fail again (then nobody should pay for another machine), and what does a
person need to read. The patterns are those of uv 0.9 to 0.13, pip and apt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.observation import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_BYTES = 1024
TRANSIENT = re.compile(
    r"error sending request|client error \(Connect\)|dns error|failed to lookup address|timed? ?out"
    r"|connection (refused|reset|closed)|temporary failure|could not resolve|failed to fetch"
    r"|request failed after|unable to connect|could not get lock|503 service|502 bad gateway|429 too many"
    r"|tls handshake|unexpected eof|no space left",
    re.IGNORECASE,
)
LABELS = {"packages": "pip", "python": "python", "apt": "apt", "uv": "uv", "env": "env", "agent": "agent"}

NOT_FOUND = {
    "packages": re.compile(r"(?:Because )?(\S+ was not found in the package registry)"),
    "apt": re.compile(r"E: (Unable to locate package \S+|Package '\S+' has no installation candidate)"),
    "python": re.compile(
        r"(?:error: )?(No (?:interpreter|download) found for (?:request: )?Python [\d.]+)", re.I
    ),
}
REJECTED = {
    "packages": re.compile(
        r"No solution found when resolving|there is no version of|requirements are unsatisfiable"
        r"|Failed to (?:parse|build)|has no wheels? with a matching|not a valid",
        re.IGNORECASE,
    ),
    "apt": re.compile(r"E: Version '\S+' for '\S+' was not found|Unable to correct problems", re.IGNORECASE),
}
BECAUSE = re.compile(r"Because (there is no version of .+?|.+?) and you require", re.DOTALL)


def judge(step: str, kind: str, message: str, lines: Sequence[str]) -> Failure:
    """The failure of a step. `kind` and `message` are what the script itself said."""
    label = LABELS.get(step, step)
    text = "\n".join(lines)
    log = "\n".join(lines[-50:])
    found = NOT_FOUND[step].search(text) if step in NOT_FOUND else None
    if found is not None:
        reason = NodeReason.PYTHON_NOT_FOUND if step == "python" else NodeReason.PACKAGE_NOT_FOUND
        return Failure(reason, bound(f"{label}: {found[1]}"), permanent=True, log=log)
    rejected = kind == "rejected" or (step in REJECTED and REJECTED[step].search(text) is not None)
    if kind != "rejected" and TRANSIENT.search(text):
        rejected = False
    reason = NodeReason.IMAGE_REJECTED if rejected else NodeReason.BOOTSTRAP_FAILED
    because = BECAUSE.search(text)
    if because and "there is no version of" in because[1]:
        reason = NodeReason.PACKAGE_NOT_FOUND
    words = because[1] if because else (message if kind == "rejected" else tail(lines) or message)
    if step == "env" and rejected:
        words = "; ".join([message, *(line.strip() for line in lines[-3:] if line.strip())])
    return Failure(reason, bound(f"{label}: {words}"), permanent=rejected, log=log)


def tail(lines: Sequence[str]) -> str:
    """The last lines that say something, oldest first: errors and their causes, else the very last."""
    telling = [line.strip() for line in lines if re.match(r"\s*(error|cause|E|fatal|\w*Error)\b", line)]
    return "; ".join((telling or [line.strip() for line in lines if line.strip()])[-3:])


def bound(text: str) -> str:
    """At most MESSAGE_BYTES, cut at the end."""
    encoded = text.encode()
    if len(encoded) <= MESSAGE_BYTES:
        return text
    return encoded[: MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
