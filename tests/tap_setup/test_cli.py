"""The command, as a person and as a script run it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tap_setup import cli
from tap_setup.cli import main
from tap_setup.config import parse_config
from tap_setup.create import create
from tap_setup.desired import Desired, desire
from tap_setup.deviations import Deviation
from tap_setup.namespaces import inside
from tap_setup.report import Change, Report
from tests.tap_setup.scene import Scene

ROOT = Path(__file__).parents[2]

TAPS = """
[[taps]]
name = "tap-pri"
owner = 65532
mtu = 9000
[[taps]]
name = "tap-sec"
owner = 65532
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "taps.toml"


@pytest.fixture
def run(scene: Scene, file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs the command with a configuration, inside the scene's namespace."""

    def run_it(command: str, config: str, *options: str) -> tuple[int, str, str]:
        file.write_text(f'device = "{scene.device}"\n{config}')
        code = inside(scene.name, scene.device, lambda _: main([command, "-c", str(file), *options]))
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_a_life(run: Run, scene: Scene, file: Path) -> None:
    before = scene.links()
    code, out, err = run("check", TAPS)
    assert (code, err) == (cli.DEVIATIONS, "")
    assert out.startswith(
        "tap-pri: does not exist\n    fix: ip tuntap add dev tap-pri mode tap user 65532 vnet_hdr\n"
    )
    assert out.endswith("2 links: 2 deviations\n")

    assert run("create", TAPS) == (
        cli.OK,
        (
            "tap-pri: made a tap: multi_queue off, owner 65532, group none, vnet_hdr on\n"
            "tap-sec: made a tap: multi_queue off, owner 65532, group none, vnet_hdr on\n"
            "tap-pri: mtu 1500 -> 9000\n"
            "tap-pri: ipv6 on -> off\n"
            "tap-pri: rp_filter off -> on\n"
            "tap-pri: arp on -> off\n"
            "tap-pri: up off -> on\n"
            "tap-sec: ipv6 on -> off\n"
            "tap-sec: rp_filter off -> on\n"
            "tap-sec: arp on -> off\n"
            "tap-sec: up off -> on\n"
            "2 links: 11 changes, all as configured\n"
        ),
        "",
    )
    assert run("create", TAPS) == (cli.OK, "2 links: no changes, all as configured\n", "")

    scene.run("ip link set dev tap-pri mtu 1500")
    assert run("check", TAPS) == (
        cli.DEVIATIONS,
        (
            "tap-pri: mtu is 1500, wanted 9000\n"
            "    fix: ip link set dev tap-pri mtu 9000\n"
            "2 links: 1 deviation\n"
        ),
        "",
    )
    assert run("create", TAPS) == (
        cli.OK,
        "tap-pri: mtu 1500 -> 9000\n2 links: 1 change, all as configured\n",
        "",
    )
    assert run("destroy", TAPS) == (
        cli.OK,
        "tap-sec: removed\ntap-pri: removed\n2 links: 2 changes\n",
        "",
    )
    assert run("destroy", TAPS) == (cli.OK, "2 links: no changes\n", "")
    assert scene.links() == before


def test_json(run: Run, scene: Scene) -> None:
    code, out, _ = run("create", TAPS, "--json")
    report = json.loads(out)
    assert code == cli.OK
    assert report["changes"][-1] == {"namespace": None, "link": "tap-sec", "what": "up off -> on"}
    scene.run("ip link set dev tap-pri mtu 1500")
    code, out, err = run("check", TAPS, "--json")
    assert (code, err) == (cli.DEVIATIONS, "")
    assert json.loads(out) == {
        "links": 2,
        "changes": [],
        "left": [],
        "kept": [],
        "deviations": [
            {
                "namespace": None,
                "link": "tap-pri",
                "property": "mtu",
                "have": "1500",
                "want": "9000",
                "fix": ["ip link set dev tap-pri mtu 9000"],
                "left_alone": None,
            }
        ],
        "error": None,
    }


def test_a_dry_run_prints_a_script_that_does_the_same(run: Run, scene: Scene, file: Path) -> None:
    scene.run("ip link add name tap-sec type bridge")
    before = scene.links()
    code, script, err = run("create", TAPS, "--dry-run")
    assert (code, err) == (cli.OK, "")
    assert scene.links() == before
    assert script.endswith(
        "# tap-sec: origin is someone else's bridge, wanted a tap of colo-tap-setup;"
        " left alone: it may be in use\n"
    )
    (file.parent / "script").write_text(script)
    scene.run(f"sh -e {file.parent}/script")
    scene.run("ip link delete dev tap-sec")
    _, script, _ = run("create", TAPS, "--dry-run")
    (file.parent / "script").write_text(script)
    scene.run(f"sh -e {file.parent}/script")
    assert run("create", TAPS) == (cli.OK, "2 links: no changes, all as configured\n", "")
    assert run("create", TAPS, "--dry-run") == (cli.OK, "# nothing to do\n", "")


def test_what_it_leaves_it_names(run: Run, scene: Scene) -> None:
    scene.run("ip tuntap add dev tap-sec mode tap")
    code, out, _ = run("create", TAPS)
    assert code == cli.DEVIATIONS
    assert out.endswith(
        "tap-sec: origin is someone else's tap, wanted a tap of colo-tap-setup"
        " (left alone: it may be in use)\n"
        "    fix: ip link delete dev tap-sec\n"
        "2 links: 6 changes, 1 deviation\n"
    )
    code, out, _ = run("destroy", TAPS)
    assert (code, out) == (
        cli.OK,
        "tap-pri: removed\ntap-sec: left, was not made by colo-tap-setup\n2 links: 1 change\n",
    )


def test_a_namespace_that_is_kept(run: Run, scene: Scene) -> None:
    name = f"{scene.name}a"
    config = f'[[namespaces]]\nname = "{name}"\n'
    assert run("create", config)[:2] == (
        cli.OK,
        f"namespace {name}: made\n0 links: 1 change, all as configured\n",
    )
    subprocess.run(["ip", "-n", name, "link", "add", "name", "br", "type", "bridge"], check=True)
    assert run("destroy", config)[:2] == (
        cli.DEVIATIONS,
        f"namespace {name}: kept, holds br: move or delete that, then again\n0 links: no changes\n",
    )
    subprocess.run(["ip", "-n", name, "link", "delete", "dev", "br"], check=True)
    assert run("destroy", config)[0] == cli.OK


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('[[taps]]\nname = "t"', "{file}: $.taps[0].owner: is missing, and has no default"),
        (
            "[[taps]",
            "{file}: is not TOML: Expected ']]' at the end of an array declaration (at line 1, column 7)",
        ),
    ],
)
def test_a_mistake_in_the_configuration(
    file: Path, capsys: pytest.CaptureFixture[str], config: str, message: str
) -> None:
    file.write_text(config)
    assert main(["check", "-c", str(file)]) == cli.USAGE
    assert capsys.readouterr() == ("", f"colo-tap-setup: {message.format(file=file)}\n")
    assert main(["check", "-c", str(file), "--json"]) == cli.USAGE
    assert json.loads(capsys.readouterr().out)["error"] == message.format(file=file)


def test_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Desired, __: str, report: Report) -> None:
        report.changes.append(Change(None, "tap-pri", "up off -> on"))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "create", interrupt)
    assert run("create", TAPS) == (
        cli.INTERRUPTED,
        "tap-pri: up off -> on\n",
        (
            "colo-tap-setup: interrupted\n"
            "colo-tap-setup: what is listed above was done, and stays;"
            " `colo-tap-setup destroy` takes it back\n"
        ),
    )


@pytest.mark.parametrize("arguments", [[], ["make"], ["check"], ["check", "-c", "f", "--dry-run"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == cli.USAGE
    assert "usage: colo-tap-setup" in capsys.readouterr().err


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


def test_a_refusal_of_the_kernel(run: Run, scene: Scene) -> None:
    code, out, err = run("create", TAPS + 'bridge = "br0"')
    assert code == cli.REFUSED
    assert out.splitlines()[-1] == "tap-sec: arp on -> off"
    assert err == (
        "colo-tap-setup: cannot put tap-sec into br0: there is no such bridge; add it to the configuration\n"
        "colo-tap-setup: what is listed above was done, and stays; `colo-tap-setup destroy` takes it back\n"
    )


UNPRIVILEGED = """
import sys
from tap_setup.cli import main
from tests.tap_setup.unprivileged import give_everything_up
arguments = sys.argv[1:]
give_everything_up()
sys.exit(main(arguments))
"""


def run_unprivileged(scene: Scene, command: str, config: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that gave everything up: root cannot be refused."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        file = Path(directory, "taps.toml")
        file.write_text(config)
        return subprocess.run(
            ["ip", "netns", "exec", scene.name, sys.executable, "-c", UNPRIVILEGED, command, "-c", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.parametrize(
    ("config", "attempt"),
    [
        ('[[bridges]]\nname = "br-client"', "make the bridge br-client"),
        ('[[namespaces]]\nname = "tapsetup-never"', "make the namespace tapsetup-never"),
        ('[[bridges]]\nname = "b"\nnamespace = "HERE"', "enter the namespace HERE"),
    ],
)
def test_without_privileges(scene: Scene, config: str, attempt: str) -> None:
    done = run_unprivileged(scene, "create", config.replace("HERE", scene.name))
    assert (done.returncode, done.stdout) == (cli.NO_PRIVILEGE, "")
    assert done.stderr == (
        f"colo-tap-setup: cannot {attempt.replace('HERE', scene.name)}: Operation not permitted;"
        " run as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for namespaces)\n"
    )


def test_checking_needs_no_privileges(scene: Scene) -> None:
    config = '[[bridges]]\nname = "br-client"'
    done = run_unprivileged(scene, "check", config)
    assert (done.returncode, done.stderr) == (cli.DEVIATIONS, "")
    assert done.stdout.startswith("br-client: does not exist\n")
    assert inside(scene.name, scene.device, lambda _: create_here(config)) == []
    done = run_unprivileged(scene, "check", config)
    assert (done.returncode, done.stdout) == (cli.OK, "1 link: all as configured\n")


def create_here(config: str) -> list[Deviation]:
    report = Report()
    create(desire(parse_config(config)), "taps.toml", report)
    return report.deviations


def test_as_a_module(scene: Scene, file: Path) -> None:
    file.write_text('[[interfaces]]\nname = "eth1"')
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tap_setup", "check", "-c", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (cli.DEVIATIONS, "")
    assert done.stdout == (
        "eth1: does not exist (left alone: only taps and bridges are made)\n"
        "    fix: plug it in, or correct its name or namespace\n"
        "1 link: 1 deviation\n"
    )
