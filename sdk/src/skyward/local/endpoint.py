"""Where a control plane is and how to be let in."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of an API server that serves the Skyward kinds."""

    server: str
    """URL, for example `https://127.0.0.1:41234`."""
    ca_file: Path
    """PEM file with the authority that signed the server's certificate."""
    token: str = field(repr=False)
    """Bearer token of a cluster administrator; never log it."""
    kubeconfig: Path
    """File for `kubectl --kubeconfig`, with the same server and token."""
    namespace: str = "default"
