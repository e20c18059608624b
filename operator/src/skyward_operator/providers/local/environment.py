"""The environment of processes inside a local machine: clean, so that nothing of the user's shell leaks in.

What stays is what a machine of a cloud would have from its image: a PATH, a locale, the network's proxies,
certificates and package indexes. The caches of uv are the computer's own, which is why a second machine with
the same image is ready at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skyward_operator.providers.local.processes import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.providers.local.folder import Folder

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
NETWORK = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_CONFIG_FILE",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_OFFLINE",
    "UV_HTTP_TIMEOUT",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_PYTHON_DOWNLOADS",
)


OWN = ("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "PYTHONPATH")
FOLDERS = ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR")


def environment_of_process(folder: Folder, host: Mapping[str, str]) -> dict[str, str]:
    """The environment of the machine's own process: what it makes the one inside of, and no credentials,
    since what runs inside as the same user could read it there."""
    return {name: host[name] for name in (*NETWORK, *OWN, *FOLDERS) if name in host} | {MARK: folder.id}


def path_inside(folder: Folder) -> str:
    """PATH with uv and the Python that the operator runs on, then the system's.

    uv is reached through a link of its own, so that nothing else from its folder is on the PATH.
    """
    uv, link = find_uv(), folder.programs / "uv"
    if uv is not None and not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(uv)
    own = [str(folder.programs), str(Path(sys.base_prefix) / "bin")]
    return os.pathsep.join(dict.fromkeys([*own, *SYSTEM_PATH]))


def find_uv() -> Path | None:
    """The computer's uv: the one installed beside the operator, else the one on the PATH."""
    beside = Path(sys.prefix) / "bin" / "uv"
    if beside.exists():
        return beside
    found = shutil.which("uv")
    return Path(found) if found else None


def environment_inside(folder: Folder, user: str, host: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a shell inside this machine."""
    home = Path.home()
    cache = host.get("XDG_CACHE_HOME") or str(home / ".cache")
    data = host.get("XDG_DATA_HOME") or str(home / ".local" / "share")
    inside = {name: host[name] for name in NETWORK if name in host}
    config = Path(host.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / "uv.toml"
    if config.exists():
        inside.setdefault("UV_CONFIG_FILE", str(config))
    return inside | {
        MARK: folder.id,
        "HOME": str(folder.home),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "PATH": path_inside(folder),
        "LANG": host.get("LANG", "C.UTF-8"),
        "TMPDIR": str(folder.run_path),
        "XDG_RUNTIME_DIR": str(folder.run_path),
        "HISTFILE": "",
        "SKYWARD_ENVIRONMENTS": str(folder.environments),
        "UV_CACHE_DIR": host.get("UV_CACHE_DIR", f"{cache}/uv"),
        "UV_PYTHON_INSTALL_DIR": host.get("UV_PYTHON_INSTALL_DIR", f"{data}/uv/python"),
    }
