import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from colo_compare import cli
from colo_compare.build import describe_build
from colo_compare.errors import (
    CaptureError,
    CheckpointFailed,
    ColoCompareError,
    ConfigError,
    ControlError,
    ControlRefused,
    FramingError,
    PortClosed,
    PortUnavailable,
    PromotionFailed,
    SetupError,
)

GOOD = """\
[proxy]
mode = "observe"
[ports]
client = "packet:eth0"
primary = "packet:tap-pri"
secondary = "packet:tap-sec"
[checkpointer]
backend = "null"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration without mistakes."""
    path = tmp_path / "colo-compare.toml"
    path.write_text(GOOD)
    return path


def usage_error(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    return ended.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error("--version") == 0
    assert capsys.readouterr().out == f"colo-compare {describe_build()}\n"


def test_help_has_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error("--help") == 0
    text = capsys.readouterr().out
    for word in ("run", "check", "replay", "demo", "status", "promote", "checkpoint", "exit codes", "70"):
        assert word in text


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("dance",),
        ("run",),
        ("check",),
        ("check", "-c", "x", "--schema"),
        ("status", "extra"),
    ],
)
def test_wrong_usage(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(*argv) == cli.USAGE
    assert "usage: colo-compare" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported_for(option: str) -> None:
    code = (
        "import sys; from colo_compare.cli import main\n"
        f"try: main([{option!r}])\n"
        "except SystemExit: pass\n"
        "assert not {'trio', 'msgspec', 'dpkt', 'scapy', 'pyroute2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_prints_what_is_in_effect(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "-c", str(config)]) == cli.OK
    text = capsys.readouterr().out
    assert 'mode = "observe"' in text
    assert 'compare_timeout = "3s"' in text  # a default


def test_check_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--schema"]) == cli.OK
    assert '"compare_timeout"' in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_mistake_in_the_configuration_is_one_line(
    command: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(GOOD + "[proxi]\n")
    assert cli.main([command, "-c", str(config)]) == cli.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("colo-compare: $.proxi: ")
    assert captured.err.count("\n") == 1


def test_debug_shows_where_an_error_comes_from(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[")
    assert cli.main(["check", "--debug", "-c", str(config)]) == cli.USAGE
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("colo-compare: ")


@pytest.mark.parametrize("command", ["status", "promote", "checkpoint"])
def test_no_daemon(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--socket", str(tmp_path / "no.sock")]) == cli.NO_DAEMON
    assert capsys.readouterr().err.startswith(f"colo-compare: no daemon answers on {tmp_path}/no.sock")


def test_the_socket_may_come_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLO_COMPARE_CONTROL__SOCKET", str(tmp_path / "other.sock"))
    assert cli.main(["status"]) == cli.NO_DAEMON
    assert "other.sock" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("$.ports", "is missing"), 2),
        (CaptureError("no pcap"), 2),
        (PortUnavailable("no such interface"), 3),
        (PortClosed("gone"), 3),
        (FramingError("no frame"), 3),
        (SetupError("no bridge"), 3),
        (CheckpointFailed("no"), 4),
        (PromotionFailed("no"), 4),
        (ControlError("nobody there"), 5),
        (ControlRefused("not protected"), 1),
        (ColoCompareError("anything"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: ColoCompareError, code: int) -> None:
    assert cli.exit_code(error) == code


# A command's module is imported when that command is used, and not before. These stand in for one.


def fake_command(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    module = types.ModuleType("colo_compare.replay")

    def run(args: object) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    vars(module).update(add_arguments=lambda parser: parser.add_argument("--fake"), run=run)
    monkeypatch.setitem(sys.modules, "colo_compare.replay", module)


def test_a_command_of_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, 1)
    assert cli.main(["replay", "--fake", "x"]) == 1


def test_a_missing_module_does_not_hurt_the_other_commands(
    monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "colo_compare.replay", None)  # an import of it fails
    assert cli.main(["check", "-c", str(config)]) == cli.OK
    assert usage_error("--help") == 0
    assert cli.main(["replay"]) == cli.INTERNAL
    assert "colo_compare.replay" in capsys.readouterr().err.splitlines()[-1]


def test_a_bug_is_reported_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_command(monkeypatch, ZeroDivisionError("by nobody"))
    assert cli.main(["replay"]) == cli.INTERNAL
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == "colo-compare: internal error: ZeroDivisionError: by nobody"


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, KeyboardInterrupt())
    assert cli.main(["replay"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "colo-compare: interrupted\n"


def test_output_that_nobody_reads_is_no_error(config: Path) -> None:
    program = [sys.executable, "-m", "colo_compare", "check", "-c", str(config)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(program, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.UNREAD, "")
