"""What the end of a bootstrap's output means. The texts are what uv 0.13 and apt print."""

from __future__ import annotations

import pytest

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.verdict import MESSAGE_BYTES, judge

MISSING = """\
Using Python 3.13.0 environment at: v
error: No solution found when resolving dependencies
  cause: Because no-such-package was not found in the package registry and you require no-such-package, we \
can conclude that your requirements are unsatisfiable."""
OLD_MISSING = """\
  \u00d7 No solution found when resolving dependencies:
  ╰─▶ Because no-such-package was not found in the package registry and you require no-such-package, we can"""
NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of numpy==99.1 and you require numpy==99.1, we can conclude that your \
requirements are unsatisfiable."""
OFFLINE = """\
error: Failed to fetch: https://pypi.org/simple/numpy/
  cause: error sending request for url (https://pypi.org/simple/numpy/)
  cause: client error (Connect)
  cause: Connection refused (os error 111)"""
NO_PYTHON = """\
error: No interpreter found for Python 3.99 in managed installations or search path

hint: uv embeds available Python downloads and may require an update to install new versions."""
NO_DOWNLOAD = """\
error: Request failed after 3 retries in 7.2s
  cause: Failed to download `https://github.com/astral-sh/python-build-standalone/releases/x.tar.gz`
  cause: dns error"""
APT = """\
Reading package lists...
E: Unable to locate package nosuchthing"""
APT_OFFLINE = """\
E: Failed to fetch http://deb.debian.org/debian/x.deb  Temporary failure resolving 'deb.debian.org'
E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?"""


@pytest.mark.parametrize(
    ("step", "text", "reason", "permanent", "message"),
    [
        (
            "packages",
            MISSING,
            NodeReason.PACKAGE_NOT_FOUND,
            True,
            "pip: no-such-package was not found in the package registry",
        ),
        (
            "packages",
            OLD_MISSING,
            NodeReason.PACKAGE_NOT_FOUND,
            True,
            "pip: no-such-package was not found in the package registry",
        ),
        (
            "packages",
            NO_VERSION,
            NodeReason.PACKAGE_NOT_FOUND,
            True,
            "pip: there is no version of numpy==99.1",
        ),
        ("packages", OFFLINE, NodeReason.BOOTSTRAP_FAILED, False, "Connection refused"),
        (
            "python",
            NO_PYTHON,
            NodeReason.PYTHON_NOT_FOUND,
            True,
            "python: No interpreter found for Python 3.99",
        ),
        ("python", NO_DOWNLOAD, NodeReason.BOOTSTRAP_FAILED, False, "dns error"),
        ("apt", APT, NodeReason.PACKAGE_NOT_FOUND, True, "apt: Unable to locate package nosuchthing"),
        ("apt", APT_OFFLINE, NodeReason.BOOTSTRAP_FAILED, False, "Temporary failure resolving"),
    ],
)
def test_the_output_of_a_failed_step(
    step: str, text: str, reason: NodeReason, permanent: bool, message: str
) -> None:
    failure = judge(step, "transient", "step ended with status 1", text.splitlines())
    assert (failure.reason, failure.permanent) == (reason, permanent)
    assert message in failure.message
    assert text.splitlines()[-1] in failure.log


def test_what_the_script_itself_rejects_is_said_in_its_words() -> None:
    failure = judge("apt", "rejected", "apt packages need root", ["connection refused"])
    assert failure.permanent
    assert failure.message == "apt: apt packages need root"


def test_a_message_is_bounded() -> None:
    failure = judge("packages", "transient", "", ["error: " + "ü" * 5000])
    assert len(failure.message.encode()) <= MESSAGE_BYTES
