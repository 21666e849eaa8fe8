"""`config init`, without a question and with them."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from colo_compare import cli
from colo_compare.commands import config
from colo_compare.config import Config, load_config
from tap_setup import desired
from tap_setup.host import LinkState

PORTS = ["--client", "packet:eth1", "--primary", "tap:t1", "--secondary", "tap:t2"]


def link(name: str, kind: str = "hardware", address: str = "none", master: str = "none") -> LinkState:
    return LinkState(name, 1, kind, "", {desired.ADDRESS: address, desired.MASTER: master}, False)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[LinkState]:
    """The interfaces of this machine, as the command sees them; none at first."""
    found: list[LinkState] = []
    monkeypatch.setattr(config, "links_here", lambda: found)
    return found


def init(tmp_path: Path, *argv: str) -> Config:
    path = tmp_path / "pair.toml"
    assert cli.main(["config", "init", str(path), "--yes", *argv]) == cli.OK
    return load_config(path, {})


def test_everything_given(tmp_path: Path, links: list[LinkState], capsys: pytest.CaptureFixture[str]) -> None:
    made = init(tmp_path, *PORTS)
    assert (made.ports.client, made.ports.primary, made.ports.secondary) == (
        "packet:eth1",
        "tap:t1",
        "tap:t2",
    )
    assert (made.proxy.mode, made.checkpointer.backend) == ("observe", "null")
    assert capsys.readouterr().err == (
        f"wrote {tmp_path}/pair.toml; next: colo-compare doctor -c {tmp_path}/pair.toml\n"
    )


def test_what_is_commented_out_is_the_default(tmp_path: Path, links: list[LinkState]) -> None:
    plain = init(tmp_path, *PORTS)
    path = tmp_path / "pair.toml"
    lines = path.read_text().splitlines()
    # "# key = value" becomes "key = value"; whole sentences stay comments.
    bare = [line[2:] if line.startswith("# ") and " = " in line[:30] else line for line in lines]
    assert bare != lines
    path.write_text("\n".join(bare))
    assert load_config(path, {}) == plain


@pytest.mark.parametrize("backend", config.BACKENDS)
def test_each_backend_gives_a_configuration(tmp_path: Path, links: list[LinkState], backend: str) -> None:
    argv = [*PORTS, "--backend", backend, "--primary-monitor", "unix:/p", "--secondary-monitor", "unix:/s"]
    mode = "observe" if backend == "null" else "protect"
    made = init(tmp_path, *argv, "--mode", mode)
    assert (made.checkpointer.backend, made.proxy.mode) == (backend, mode)


def test_suggestions(tmp_path: Path, links: list[LinkState]) -> None:
    links += [
        link("eth0", address="10.0.0.1/24"),
        link("br0", desired.BRIDGE),
        link("port", master="br0"),
        link("eth1"),
        link("tap-sec", desired.TAP),
        link("tap-pri", desired.TAP),
    ]
    made = init(tmp_path)
    assert (made.ports.client, made.ports.primary, made.ports.secondary) == (
        "packet:eth1",
        "tap:tap-pri",
        "tap:tap-sec",
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--client: is not given, and nothing here suggests it; interfaces: none"),
        (
            [*PORTS[:4], "--secondary", "tap:t1"],
            "$.ports.secondary: interface t1 is the primary port",
        ),
        ([*PORTS, "--mode", "protect"], "$.checkpointer"),
        (
            [*PORTS, "--backend", "qemu", "--primary-monitor", "x"],
            '$.checkpointer.primary: "x" is no',
        ),
    ],
)
def test_what_is_no_configuration_is_not_written(
    tmp_path: Path, links: list[LinkState], argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pair.toml"
    assert cli.main(["config", "init", str(path), "--yes", *argv]) == cli.USAGE
    assert capsys.readouterr().err.startswith(f"colo-compare: {words}")
    assert not path.exists()


def test_a_file_that_is_there(
    tmp_path: Path, links: list[LinkState], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pair.toml"
    path.write_text("precious")
    assert cli.main(["config", "init", str(path), "--yes", *PORTS]) == cli.USAGE
    assert path.read_text() == "precious"
    assert cli.main(["config", "init", str(path), "--yes", "--force", *PORTS]) == cli.OK
    assert cli.main(["config", "init", str(tmp_path / "no" / "x.toml"), "--yes", *PORTS]) == cli.USAGE
    assert "cannot be written" in capsys.readouterr().err


def test_without_a_file_it_is_printed(links: list[LinkState], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "init", "--yes", *PORTS]) == cli.OK
    assert 'client = "packet:eth1"' in capsys.readouterr().out


def converse(*argv: str, answers: str) -> tuple[int, str, str]:
    """Answer on a terminal; give the exit code, what was asked and what was printed."""
    near, far = pty.openpty()
    program = [sys.executable, "-m", "colo_compare", "config", "init", *argv]
    os.write(near, answers.encode())
    done = subprocess.run(program, stdin=far, capture_output=True, text=True, check=False, timeout=60)
    os.close(near)
    os.close(far)
    return done.returncode, done.stderr, done.stdout


def test_questions_on_a_terminal() -> None:
    code, asked, printed = converse(*PORTS[:4], answers="tap:t9\ncommand\nprotect\n")
    assert code == cli.OK
    assert asked.startswith("The secondary's port (interfaces here: ")
    assert "What makes checkpoints: null, command or qemu [null]: " in asked
    assert asked.endswith("Mode: observe (only counts) or protect [observe]: ")
    assert 'secondary = "tap:t9"' in printed
    assert 'mode = "protect"' in printed


def test_a_wrong_answer_and_none() -> None:
    code, asked, _ = converse(*PORTS, answers="tape\n")
    assert code == cli.USAGE
    assert asked.endswith('colo-compare: --backend: "tape" is not one of null, command, qemu\n')
    code, asked, _ = converse(*PORTS, answers="\x04")
    assert code == cli.USAGE
    assert asked.endswith("config init: the answers ended: nothing was written\n")


def test_the_interfaces_of_this_machine() -> None:
    assert all(found.name != "lo" for found in config.links_here())
