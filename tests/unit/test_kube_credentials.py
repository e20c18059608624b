"""Finding the API server and proving who we are, from files as they lie around."""

from __future__ import annotations

import base64
import json
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from skyward_operator.kube import kubeconfig
from skyward_operator.kube.errors import CredentialsError
from skyward_operator.kube.tokens import ExecToken, FileToken

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, *, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://127.0.0.1:6443/"}}],
        "users": [{"name": "u", "user": user}],
    }
    file = folder / "config"
    file.write_text(yaml.safe_dump(config))
    return file


async def test_a_token_is_taken_from_the_current_context(tmp_path: Path) -> None:
    found = kubeconfig.load(write(tmp_path, user={"token": "secret-token"}))

    assert found.server == "https://127.0.0.1:6443"
    assert found.namespace == "team"
    assert found.token is not None
    assert await found.token.get() == "secret-token"
    assert "secret-token" not in repr(found)


async def test_a_token_file_is_read_again_after_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    found = kubeconfig.load(write(tmp_path, user={"tokenFile": "token"}))
    assert isinstance(found.token, FileToken)
    assert await found.token.get() == "first"
    (tmp_path / "token").write_text("second\n")

    assert await found.token.get() == "first"
    found.token.expire()
    assert await found.token.get() == "second"


async def test_a_vanished_token_file_leaves_the_last_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    token = FileToken(file)
    await token.get()
    file.unlink()
    token.expire()

    assert await token.get() == "first"


async def test_an_exec_plugin_gives_the_token_until_it_expires(tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = """
import json, os, pathlib
count = pathlib.Path(os.environ["COUNT"])
number = len(count.read_text()) + 1 if count.exists() else 1
count.write_text("x" * number)
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["kind"] == "ExecCredential"
print(json.dumps({"status": {"token": f"t{number}", "expirationTimestamp": os.environ["UNTIL"]}}))
"""
    environment = {"COUNT": str(count), "UNTIL": "2999-01-01T00:00:00Z"}
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", program],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
        }
    }
    token = kubeconfig.load(write(tmp_path, user=user)).token
    assert isinstance(token, ExecToken)

    assert [await token.get(), await token.get()] == ["t1", "t1"]
    token.expire()
    assert await token.get() == "t2"


@pytest.mark.parametrize(
    ("program", "complaint"),
    [("raise SystemExit(3)", "ended with 3"), ("print('{}')", "gave no token")],
)
async def test_a_broken_exec_plugin_is_named(program: str, complaint: str) -> None:
    token = ExecToken([sys.executable, "-c", program], {}, "client.authentication.k8s.io/v1")

    with pytest.raises(CredentialsError, match=complaint):
        await token.get()


def test_the_service_account_is_used_inside_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("skyward-system\n")
    (tmp_path / "ca.crt").write_text(_some_authority())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)

    found = kubeconfig.from_service_account(tmp_path)

    assert found.server == "https://[fd00::1]:443"
    assert found.namespace == "skyward-system"


def test_an_authority_in_the_kubeconfig_is_trusted_and_no_other(tmp_path: Path) -> None:
    data = base64.b64encode(_some_authority().encode()).decode()
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": data}

    found = kubeconfig.load(write(tmp_path, user={"token": "t"}, cluster=cluster))

    assert found.tls is not None
    assert found.tls.verify_mode is ssl.CERT_REQUIRED
    assert len(found.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot read the kubeconfig"),
        ("[]", "is not a kubeconfig"),
        ("{}", "choose one with --context"),
        (json.dumps({"current-context": "x", "contexts": [{"name": "y"}]}), "no context 'x' .there are: y."),
    ],
)
def test_an_unusable_kubeconfig_is_refused_with_the_reason(
    tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "config"
    file.write_text(content)

    with pytest.raises(CredentialsError, match=complaint):
        kubeconfig.load(file)


def test_credentials_that_are_no_certificates_are_refused_without_showing_them(tmp_path: Path) -> None:
    wrong = base64.b64encode(b"private").decode()
    user = {"client-certificate-data": wrong, "client-key-data": wrong}

    with pytest.raises(CredentialsError, match="client certificate is not usable") as raised:
        kubeconfig.load(write(tmp_path, user=user))

    assert wrong not in str(raised.value)


def test_nothing_to_use_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(CredentialsError, match="--kubeconfig"):
        kubeconfig.load()


def _some_authority() -> str:
    """Any one root certificate of this machine."""
    return ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0])
