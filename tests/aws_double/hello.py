"""`make hello-aws`: the digits example on "AWS", which is the double, from a person's program to the bill.

A control plane of its own is started for it and ended. The machines are bought through EC2's API, reached by
SSH, paid for at the double's prices, and given back: the double is asked at the end. AWS itself is not.
"""

from __future__ import annotations

import getpass
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.aws_double.process import KEY, SECRET, Double, double
from tests.cluster.front_door import MINUTES, ROOT, Person, newcomer

if TYPE_CHECKING:
    from pathlib import Path

REGION = "us-east-1"
PROVIDER = f'sky.AWS(region="{REGION}", ssh_user="{getpass.getuser()}", ssh_port=2222)'
"""The double's machines are processes of this computer: they have this user, and no port below 1024."""


def identity(cloud: Double) -> dict[str, str]:
    """The environment of an operator with an identity at the double."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "SKYWARD_AWS_REGIONS": REGION,
        "SKYWARD_AWS_SSH_CIDR": "127.0.0.1/32",
    }


def example(person: Person) -> Path:
    """The digits example, with AWS in place of this computer; nothing else is changed."""
    text = (ROOT / "examples" / "digits.py").read_text()
    assert "sky.Local()" in text
    file = person.folder / "digits.py"
    file.write_text(text.replace("sky.Local()", PROVIDER))
    return file


def main() -> None:
    """Run it, and say what it cost and what is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    with double() as cloud, newcomer(**identity(cloud)) as person:
        done = subprocess.run(
            [person.python, example(person)],
            cwd=person.folder,
            env=person.environment,
            timeout=10 * MINUTES,
            check=False,
        )
        audit = cloud.audit()
    left = {kind: audit[kind] for kind in ("alive", "key_pairs", "groups") if audit[kind]}
    print(f'"AWS" sold {audit["bought"]} machines for ${audit["amount"]}')
    print(f"left there: {left or 'nothing'}")
    sys.exit(done.returncode or bool(left) or not audit["bought"])


if __name__ == "__main__":
    main()
