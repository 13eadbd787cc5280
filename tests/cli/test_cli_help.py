"""Every command explains itself, with an example, without loading torch, and is in the README."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qm9flow.cli.main import COMMANDS, cli, main

README = Path(__file__).resolve().parents[2] / "README.md"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, with its words."""
    context = click.Context(cli)
    for name in COMMANDS:
        found = cli.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from ((f"{name} {sub}", command) for sub, command in found.commands.items())
        else:
            yield name, found


def groups() -> list[str]:
    """The words that hold other commands."""
    context = click.Context(cli)
    return [name for name in COMMANDS if isinstance(cli.get_command(context, name), click.Group)]


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=str)
def test_help_has_an_example(words: str, command: click.Command) -> None:
    result = CliRunner().invoke(cli, [*words.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert "Example:" in result.output
    assert f"qm9flow {words}" in result.output


@pytest.mark.parametrize("words", ["", *groups()])
def test_overviews_have_an_example(words: str) -> None:
    result = CliRunner().invoke(cli, [*words.split(), "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_readme_names_the_command(words: str) -> None:
    assert f"qm9flow {words}" in README.read_text()


@pytest.mark.parametrize("words", ["", "study", "data"])
def test_overviews_give_each_command_a_whole_line(words: str) -> None:
    """As wide as a terminal usually is; click would break a line or cut it short."""
    result = CliRunner().invoke(cli, [*words.split(), "--help"], terminal_width=80)
    group = cli.get_command(click.Context(cli), words) if words else None
    names = list(group.commands) if isinstance(group, click.Group) else list(COMMANDS)
    lines = [line for line in result.output.splitlines() if line.split()[:1] != ["qm9flow"]]
    for name in names:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.endswith("."), line
        assert not line.endswith("..."), line


def test_every_option_explains_itself() -> None:
    for words, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{words} {parameter.name}"


def test_help_loads_no_torch() -> None:
    """All in one process of its own: what the first loads would still be there after the last."""
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from qm9flow.cli.main import cli\n"
        f"for words in {['', *(words for words, _ in commands()), *groups()]!r}:\n"
        "    result = CliRunner().invoke(cli, [*words.split(), '-h'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "    loaded = {'torch', 'optuna', 'bentoml'} & set(sys.modules)\n"
        "    assert not loaded, (words, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_study_show_wants_at_least_one_trial() -> None:
    result = CliRunner().invoke(cli, ["study", "show", "any", "--top", "0"])
    assert result.exit_code == 2
    assert "x>=1" in result.output


def test_errors_are_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("n_trails = 3\n")
    monkeypatch.setattr(sys, "argv", ["qm9flow", "study", "run", "--config", str(bad)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "n_trails" in said
    assert "n_trials" in said
    assert "Traceback" not in said
