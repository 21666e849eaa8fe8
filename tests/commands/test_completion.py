"""The completions, asked of the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from colo_compare import cli


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["completion", shell]) == cli.OK
    return capsys.readouterr().out


def ask(shell: str, *argv: str) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, *argv], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(path: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"""
        source {path}
        COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
        compopt() {{ :; }}
        _shtab_colo_compare colo-compare "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return ask("bash", "--norc", "-c", code).split()


def test_bash_completes_commands_options_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "colo-compare"
    path.write_text(script("bash", capsys))
    assert set(bash(path, "colo-compare", "s")) >= {"status", "set", "simulate"}
    assert set(bash(path, "colo-compare", "events", "--")) >= {"--follow", "--json", "--socket", "--last"}
    assert bash(path, "colo-compare", "completion", "z") == ["zsh"]
    assert str(path) in bash(path, "colo-compare", "check", "-c", str(tmp_path / "co"))


def test_zsh_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "_colo-compare"
    path.write_text(script("zsh", capsys))
    assert path.read_text().startswith("#compdef colo-compare")
    ask("zsh", "-f", "-n", str(path))


def test_fish_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "colo-compare.fish"
    path.write_text(script("fish", capsys))
    offered = ask("fish", "--no-config", "-c", f"source {path}; complete -C 'colo-compare st'")
    assert offered.split("\t")[0] == "status"
    offered = ask("fish", "--no-config", "-c", f"source {path}; complete -C 'colo-compare events --fo'")
    assert offered.split("\t")[0] == "--follow"


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("bash", capsys)
    for command in ("run", "check", "replay", "demo", "top", "explain", "capture", "protect", "completion"):
        assert f"_shtab_colo_compare_{command}_option_strings" in text
