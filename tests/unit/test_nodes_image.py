"""What is sent to a machine to make it a node."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tomllib
from typing import Any

import pytest

from skyward.contract.image import Image
from skyward.contract.pool import Worker
from skyward_operator.nodes.image import (
    environment_digest,
    environment_files,
    plan,
    requirement_name,
    variables,
)


def image(**fields: Any) -> Image:
    """An image."""
    return Image.read({"python": "3.13", **fields})


def digest(**fields: Any) -> str:
    """The name of an image's environment."""
    return environment_digest(environment_files(image(**fields)))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("numpy", "numpy"),
        ("Torch_Vision==2.0; python_version > '3'", "torch-vision"),
        ("scikit.learn[all]>=1", "scikit-learn"),
        ("thing @ git+https://example.org/thing", "thing"),
        ("git+https://example.org/thing@main", ""),
    ],
)
def test_the_package_of_a_requirement(line: str, name: str) -> None:
    assert requirement_name(line) == name


def test_the_environment_is_named_by_what_is_in_it() -> None:
    assert digest() == digest(env=[{"name": "A", "value": "1"}], apt=["git"])
    names = {
        digest(),
        digest(python="3.12"),
        digest(pip=["numpy"]),
        digest(indexes=[{"url": "https://x.example/simple"}]),
        digest(pip=["torch"], indexes=[{"url": "https://x.example/simple", "packages": ["torch"]}]),
    }
    assert len(names) == 5


def test_packages_of_an_index_come_from_there_only() -> None:
    files = environment_files(
        image(
            pip=["torch==2.9.1", "numpy"],
            indexes=[
                {"url": "https://torch.example/whl", "packages": ["Torch", "triton"]},
                {"url": "https://more.example/simple"},
            ],
        )
    )
    project = tomllib.loads(files["indexes/pyproject.toml"])
    assert project["project"]["dependencies"] == ["torch==2.9.1", "triton"]
    assert project["tool"]["uv"]["index"] == [
        {"name": "index-0", "url": "https://torch.example/whl", "explicit": True}
    ]
    assert project["tool"]["uv"]["sources"] == {"torch": {"index": "index-0"}, "triton": {"index": "index-0"}}
    lines = files["requirements.txt"].splitlines()
    assert "--extra-index-url https://more.example/simple" in lines
    assert "numpy" in lines
    assert not any(line.startswith("torch") for line in lines)


def test_variables_survive_quotes_newlines_and_dollars() -> None:
    text = variables(
        image(
            env=[{"name": "HARD", "value": 'it\'s $HOME\n`x` "y"'}],
            shellVars=[{"name": "SUM", "command": "# why\necho $((1 + 2))"}],
        )
    )
    shown = subprocess.run(
        ["bash", "-c", text + 'printf "%s|%s" "$HARD" "$SUM"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == 'it\'s $HOME\n`x` "y"|3'


def test_every_file_of_the_archive_is_for_its_owner_only() -> None:
    made = plan(image(pip=["numpy"], apt=["git"]), Worker(concurrency=3), ("digest", b"bundle"))
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert all(member.mode == 0o600 for member in members.values())
        slots = tar.extractfile("slots")
        assert slots is not None
        assert slots.read() == b"3"
    assert {"bootstrap.sh", "bundle.tar.gz", "requirements.txt", "variables", "apt"} <= set(members)
    assert made.bundle == "digest"


def test_nodes_of_one_image_share_their_archive() -> None:
    first = plan(image(pip=["numpy"]), Worker(), ("digest", b"bundle"))
    assert plan(image(pip=["numpy"]), Worker(), ("digest", b"bundle")) is first
    assert plan(image(pip=["numpy", "scipy"]), Worker(), ("digest", b"bundle")) is not first
