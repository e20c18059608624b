"""Configuration files: what holds, where it was said, and what a pool is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import skyward as sky
from skyward import config
from skyward.cli.main import app
from skyward.config import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".skyward").mkdir(parents=True)
    (tmp_path / "project" / "deep").mkdir(parents=True)
    (tmp_path / "project" / ".git").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "deep")
    return tmp_path


def write(folder: Path, *, project: str = "", defaults: str = "") -> None:
    (folder / "project" / "skyward.toml").write_text(project)
    (folder / "home" / ".skyward" / "defaults.toml").write_text(defaults)


def test_a_pool_is_made_of_its_table(folder: Path) -> None:
    write(
        folder,
        project="""
[providers.work]
type = "aws"
region = "eu-central-1"
[pools.train]
provider = "work"
accelerator = { name = "A100", count = 8, memory = "80GB" }
nodes = { desired = 4, min = 2 }
image = { pip = ["torch"], pip_indexes = [{ url = "https://example.org/whl", packages = ["torch"] }] }
volumes = [{ bucket = "data", mount = "/data" }]
worker = { concurrency = 2 }
selection = "first"
""",
    )
    found = config.pool(config.load(), "train")
    assert found is not None
    assert found.specs == (
        sky.Spec(
            provider=sky.AWS(region="eu-central-1"),
            accelerator=sky.Accelerator("A100", 8, "80GB"),
            nodes=sky.Nodes(4, min=2),
            image=sky.Image(pip=["torch"], pip_indexes=[sky.PipIndex("https://example.org/whl", ["torch"])]),
            volumes=[sky.Volume("data", "/data")],
        ),
    )
    assert found.options == sky.Options(selection="first", worker=sky.Worker(2))
    assert found.origin.endswith("skyward.toml:5")


def test_candidates_take_what_their_pool_says_unless_they_say_otherwise(folder: Path) -> None:
    text = """
[pools.any]
nodes = [2, 8]
allocation = "spot"
[[pools.any.specs]]
provider = "sim"
[[pools.any.specs]]
provider = "local"
allocation = "on-demand"
"""
    write(folder, project=text)
    found = config.pool(config.load(), "any")
    assert found is not None
    assert [type(spec.provider) for spec in found.specs] == [sky.Sim, sky.Local]
    assert [spec.allocation for spec in found.specs] == ["spot", "on-demand"]
    assert {spec.node_counts for spec in found.specs} == {sky.Nodes(2, max=8)}


def test_the_stronger_one_wins_and_each_value_knows_where_it_was_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        folder,
        defaults='[options]\nconsole = "log"\nselection = "first"\nnamespace = "me"\n[pools.a]\nnodes = 3\n',
        project='[options]\nselection = "available"\n\n[pools.a]\nprovider = "local"\nnamespace = "own"\n',
    )
    monkeypatch.setenv("SKYWARD_CONSOLE", "silent")
    settings = config.load()
    shared, pool = config.options(settings), config.pool(settings, "a")
    assert (shared.console, shared.selection, shared.namespace) == ("silent", "available", "me")
    assert pool is not None
    assert (pool.options.namespace, pool.options.console) == ("own", "silent")
    assert pool.specs[0].node_counts.desired == 3
    origins = {entry.path: entry.origin for entry in settings.entries()}
    assert origins["options", "console"] == "$SKYWARD_CONSOLE"
    assert origins["options", "selection"].endswith("project/skyward.toml:2")
    assert origins["options", "namespace"].endswith("defaults.toml:4")
    assert origins["pools", "a", "nodes"].endswith("defaults.toml:6")
    monkeypatch.setenv("SKYWARD_NAMESPACE", "the-environment")
    assert config.pool(config.load(), "a").options.namespace == "the-environment"  # type: ignore[union-attr]


def test_compute_takes_a_configured_pool_and_the_options_for_all(folder: Path) -> None:
    write(folder, project='[options]\nconsole = "log"\n[pools.train]\nprovider = "local"\nnodes = 2\n')
    assert sky.Compute(name="train").is_attached is False
    assert sky.Compute(name="elsewhere").is_attached is True
    explicit = sky.Compute(provider=sky.Local(), options=sky.Options(console="rich"))
    assert explicit._options.console == "rich"
    assert sky.Compute(provider=sky.Local())._options.console == "log"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[pols.a]\nnodes = 1", 1, "no table [pols]; did you mean 'pools'?"),
        ("pools = 3", 1, "pools must be a table"),
        ("[pools.a]\nnodes = 1", 1, "has no provider"),
        ('[pools.a]\nprovider = "awz"', 2, "no provider 'awz'; did you mean 'aws'?"),
        ('[pools.a]\nprovider = "x"\n[providers.x]\ntype = "nowhere"', 3, "no provider 'nowhere'"),
        ('[pools.a]\nprovider = "local"\nnodes = 0.5', 3, "nodes must be a number"),
        ('[pools.a]\nprovider = "local"\nnodez = 1', 3, "no field 'nodez'; did you mean 'nodes'?"),
        ('[pools.a]\nprovider = "local"\nimage = "torch"', 3, "must be a table, not 'torch'"),
        ('[pools.a]\nprovider = "local"\n[pools.a.image]\npython = "4"', 4, "Image.python='4' is not valid"),
        ('[pools.a]\nprovider = "local"\nselection = "best"', 3, "selection='best' is not one of"),
        ('[pools.a]\nprovider = "local"\n\n[pools.a.worker]\nconcurrency = 0', 5, "must be at least 1"),
        ("[pools.a]\nprovider = 'local'\nspecs = []", 3, "must be a list of tables"),
        (
            '[[pools.a.specs]]\nprovider = "sim"\n[[pools.a.specs]]\nprovider = "sym"',
            4,
            "did you mean 'sim'?",
        ),
        ("[options]\nconsole = 'loud'\n[pools.a]\nprovider = 'local'", 2, "console='loud' is not one of"),
        ("[pools.a]\nprovider = ", 2, "Invalid value"),
    ],
)
def test_what_cannot_be_right_is_told_with_its_line(folder: Path, text: str, line: int, words: str) -> None:
    write(folder, project=text)
    with pytest.raises(sky.ConfigurationError) as found:
        config.pool(config.load(), "a")
    assert f"skyward.toml:{line}:" in str(found.value)
    assert words in str(found.value)


def test_a_variable_that_cannot_be_right_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYWARD_SHUTDOWN_TIMEOUT", "soon")
    with pytest.raises(sky.ConfigurationError, match=r"\$SKYWARD_SHUTDOWN_TIMEOUT: .* must be a number"):
        config.options(config.load())


def test_a_file_above_the_repository_is_not_of_this_project(folder: Path) -> None:
    (folder / "skyward.toml").write_text("[options]\n")
    assert files.project_path(folder / "project" / "deep") is None
    write(folder)
    assert files.project_path(folder / "project" / "deep") == folder / "project" / "skyward.toml"


def test_the_command_shows_and_checks_it(folder: Path) -> None:
    run = CliRunner().invoke
    write(
        folder, project='[pools.a]\nprovider = "local"\nnodes = 2\n', defaults='[options]\nconsole = "log"\n'
    )
    shown = run(app, ["config", "show", "--origin"]).output.splitlines()
    assert any(
        line.split()[:2] == ["pools.a.nodes", "2"] and line.rstrip().endswith("skyward.toml:3")
        for line in shown
    )
    assert json.loads(run(app, ["config", "show", "-o", "json"]).output)["options"] == {"console": "log"}
    assert "skyward.toml" in run(app, ["config", "path"]).output
    assert run(app, ["config", "validate"]).exit_code == 0
    write(folder, project='[pools.a]\nprovider = "locl"\n[pools.b]\nnodes = 1\n')
    checked = run(app, ["config", "validate"])
    assert checked.exit_code == 1
    assert "did you mean 'local'?" in checked.output
    assert "has no provider" in checked.output
