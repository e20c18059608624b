"""Who may talk to the API server: one administrator and the operator, each with a bearer token."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from skyward.local.home import write_private

ADMIN_USER = "skyward-admin"
OPERATOR_USER = "skyward-operator"
ADMIN_GROUP = "system:masters"
_TOKEN_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """The two tokens, and the file from which the API server reads them."""

    file: Path
    admin: str = field(repr=False)
    operator: str = field(repr=False)


def ensure_tokens(folder: Path) -> Tokens:
    """Read the tokens in `folder`, or make new ones; they are kept so that kubeconfig files stay right."""
    tokens = read_tokens(folder)
    if tokens is None:
        tokens = Tokens(folder / "tokens.csv", secrets.token_hex(32), secrets.token_hex(32))
        write_private(tokens.file, _csv(tokens).encode())
    return tokens


def read_tokens(folder: Path) -> Tokens | None:
    """Answer the tokens, or None when their file is missing or damaged."""
    file = folder / "tokens.csv"
    try:
        rows = [line.split(",") for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    found = {row[1]: row[0] for row in rows if len(row) >= 3 and len(row[0]) == _TOKEN_LENGTH}
    match found.get(ADMIN_USER), found.get(OPERATOR_USER):
        case str(admin), str(operator):
            return Tokens(file, admin, operator)
        case _:
            return None


def _csv(tokens: Tokens) -> str:
    admin = f'{tokens.admin},{ADMIN_USER},{ADMIN_USER},"{ADMIN_GROUP}"\n'
    return f"{admin}{tokens.operator},{OPERATOR_USER},{OPERATOR_USER}\n"
