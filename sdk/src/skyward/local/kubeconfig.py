"""Kubeconfig files for the administrator and for the operator."""

import base64
import json
from pathlib import Path

from skyward.local.home import write_private

CONTEXT = "skyward-local"


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: str, token: str) -> None:
    """Write a kubeconfig that stands alone, readable by its owner only (JSON, which is YAML)."""
    cluster = {
        "server": server,
        "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode(),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [
            {"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user, "namespace": "default"}},
        ],
    }
    write_private(path, json.dumps(document, indent=2).encode() + b"\n")
