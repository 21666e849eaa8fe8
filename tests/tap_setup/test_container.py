"""In a container with CAP_NET_ADMIN alone, where /proc/sys is read-only."""

import subprocess
import sys
from pathlib import Path

from tap_setup import cli
from tests.tap_setup.scene import Scene

ROOT = Path(__file__).parents[2]


def create(scene: Scene, file: Path) -> subprocess.CompletedProcess[str]:
    """Run `create` as root of such a container."""
    read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
    capless = "setpriv --bounding-set=-all,+net_admin --inh-caps=-all"
    command = f"{read_only} && exec {capless} {sys.executable} -m tap_setup create -c {file}"
    return subprocess.run(
        ["ip", "netns", "exec", scene.name, "sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_says_what_the_engine_must_set(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "taps.toml"
    file.write_text(f'device = "{scene.device}"\n[[taps]]\nname = "tap-pri"\nowner = 65532\n')
    done = create(scene, file)
    assert done.returncode == cli.REFUSED
    assert done.stderr.startswith(
        "colo-tap-setup: cannot write /proc/sys/net/ipv6/conf/tap-pri/disable_ipv6: Read-only file system;"
        " let the container engine set it for every interface (net.ipv6.conf.default.disable_ipv6=1,"
        " net.ipv4.conf.default.rp_filter=1), or run privileged\n"
    )
    scene.run("ip link delete dev tap-pri")

    scene.run("sysctl -w net/ipv6/conf/default/disable_ipv6=1 net/ipv4/conf/default/rp_filter=1")
    done = create(scene, file)
    assert (done.returncode, done.stderr) == (cli.OK, "")
    assert scene.sysctl("ipv6/conf/tap-pri/disable_ipv6") == "1"


def test_no_tun_device(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "taps.toml"
    file.write_text(f'device = "{tmp_path}/tun"\n[[taps]]\nname = "tap-pri"\nowner = 65532\n')
    done = create(scene, file)
    assert (done.returncode, done.stdout) == (cli.REFUSED, "")
    assert done.stderr == (
        f"colo-tap-setup: cannot open {tmp_path}/tun: No such file or directory;"
        " load the tun module (modprobe tun), and let the container have the device\n"
    )
