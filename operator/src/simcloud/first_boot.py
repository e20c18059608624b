"""What a machine is told to do at its first boot: the part of cloud-init that customers here use.

A cloud-config document in JSON, which is YAML as well. Another text is a script of somebody's, and is not
run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh
from pydantic import BaseModel, ValidationError

from simcloud import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = "#cloud-config\n{"


class FirstBoot(BaseModel):
    """The document: keys that are not known here mean nothing."""

    ssh_keys: dict[str, str] = {}
    runcmd: list[list[str]] = []

    def host_key(self) -> tuple[bytes, str] | None:
        """The host key that the machine is given, the private one and the public one as a line."""
        private = self.ssh_keys.get("ed25519_private")
        if private is None:
            return None
        try:
            key = asyncssh.import_private_key(private)
        except asyncssh.KeyImportError as error:
            raise errors.invalid(f"user_data: ssh_keys.ed25519_private is no key: {error}") from None
        return private.encode(), key.export_public_key("openssh").decode().strip()

    @property
    def commands(self) -> Sequence[Sequence[str]]:
        """What is run inside, once."""
        return self.runcmd


def first_boot(user_data: str | None) -> FirstBoot:
    """What a machine was ordered with. Raises Refusal for a document that cannot be read."""
    if user_data is not None and user_data.startswith("#!"):
        return FirstBoot(runcmd=[["bash", "-c", user_data]])
    if user_data is None or not user_data.startswith(HEAD):
        return FirstBoot()
    try:
        return FirstBoot.model_validate_json(user_data.removeprefix(HEAD[:-1]))
    except ValidationError as error:
        raise errors.invalid(f"user_data: {error.error_count()} errors in its cloud-config") from None
