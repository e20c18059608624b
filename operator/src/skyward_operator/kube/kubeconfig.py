"""Finds the credentials: in a kubeconfig that was named, in the pod, or in the default kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from skyward_operator.kube.credentials import Credentials
from skyward_operator.kube.errors import CredentialsError
from skyward_operator.kube.tokens import ExecToken, FileToken, StaticToken

if TYPE_CHECKING:
    from skyward_operator.kube.tokens import TokenSource

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT: Final = Path("~/.kube/config")


def load(path: Path | None = None, context: str | None = None) -> Credentials:
    """The credentials to use; raises CredentialsError, whose message says what to do.

    In this order: `path`; inside a pod its service account; `$KUBECONFIG`; `~/.kube/config`.
    """
    if path is not None:
        return from_kubeconfig(path, context)
    if "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return from_service_account()
    named = [Path(entry) for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    for candidate in [*named, _DEFAULT.expanduser()]:
        if candidate.exists():
            return from_kubeconfig(candidate, context)
    raise CredentialsError(
        "no kubeconfig and no service account found; give one with --kubeconfig or $KUBECONFIG"
    )


def from_service_account(folder: Path = SERVICE_ACCOUNT) -> Credentials:
    """What every pod has; the token is read again as the kubelet rotates it."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = folder / "namespace"
    return Credentials(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        source="the pod's service account",
        tls=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        token=FileToken(folder / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else None,
    )


def from_kubeconfig(path: Path, context: str | None = None) -> Credentials:
    """One context of a kubeconfig (its current one unless named): token, token file, client
    certificate or exec plugin."""
    try:
        config = yaml.safe_load(path.expanduser().read_text())
    except (OSError, yaml.YAMLError) as error:
        raise CredentialsError(f"cannot read the kubeconfig {path}: {error}") from error
    if not isinstance(config, dict):
        raise CredentialsError(f"{path} is not a kubeconfig")
    name = context or str(config.get("current-context") or "")
    if not name:
        raise CredentialsError(f"{path} has no current context; choose one with --context")
    chosen = _entry(config, "contexts", name, "context", path)
    cluster = _entry(config, "clusters", str(chosen.get("cluster")), "cluster", path)
    user = _entry(config, "users", str(chosen.get("user")), "user", path) if chosen.get("user") else {}
    if not (server := str(cluster.get("server") or "").rstrip("/")):
        raise CredentialsError(f"{path}: the cluster of context {name!r} has no server")
    folder = path.expanduser().parent
    return Credentials(
        server=server,
        source=f"{path}, context {name}",
        tls=_tls(cluster, user, folder) if server.startswith("https") else None,
        token=_token(user, folder, path),
        namespace=chosen.get("namespace"),
    )


def _entry(config: dict[str, Any], section: str, name: str, key: str, path: Path) -> dict[str, Any]:
    entries = [entry for entry in config.get(section) or () if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("name") == name:
            return dict(entry.get(key) or {})
    known = ", ".join(sorted(str(entry.get("name")) for entry in entries)) or "none"
    raise CredentialsError(f"{path} has no {key} {name!r} (there are: {known})")


def _token(user: dict[str, Any], folder: Path, path: Path) -> TokenSource | None:
    if file := user.get("tokenFile"):
        return FileToken(folder / str(file))
    if token := user.get("token"):
        return StaticToken(str(token))
    if plugin := user.get("exec"):
        return ExecToken(
            [str(plugin.get("command")), *map(str, plugin.get("args") or ())],
            {str(pair["name"]): str(pair["value"]) for pair in plugin.get("env") or ()},
            str(plugin.get("apiVersion") or "client.authentication.k8s.io/v1"),
        )
    if "auth-provider" in user or "username" in user:
        raise CredentialsError(
            f"{path}: the user has neither token nor certificate nor exec plugin; use one of these"
        )
    return None


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority", folder)
    try:
        context = ssl.create_default_context(cadata=authority.decode("ascii") if authority else None)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise CredentialsError(f"the kubeconfig's certificate-authority is not usable: {error}") from error
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", folder), _bytes(user, "client-key", folder)
    if certificate and key:
        _load_pair(context, certificate, key)
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # ssl reads key material from files only; these are private to us and gone at once.
    with tempfile.TemporaryDirectory(prefix="skyward-") as folder:
        pair = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        for file, content in zip(pair, (certificate, key), strict=True):
            file.touch(mode=0o600)
            file.write_bytes(content)
        try:
            context.load_cert_chain(*pair)
        except ssl.SSLError as error:
            raise CredentialsError(f"the kubeconfig's client certificate is not usable: {error}") from error


def _bytes(section: dict[str, Any], name: str, folder: Path) -> bytes | None:
    try:
        if data := section.get(f"{name}-data"):
            return base64.b64decode(data)
        if file := section.get(name):
            return (folder / str(file)).read_bytes()
    except (OSError, binascii.Error) as error:
        raise CredentialsError(f"cannot read the kubeconfig's {name}: {error}") from error
    return None
