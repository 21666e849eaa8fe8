"""docs/tap-setup.md: its configurations are valid, and its commands print what it says."""

import re
import sys
from pathlib import Path

import msgspec
import pytest

from tap_setup import config
from tap_setup.config import parse_config
from tap_setup.desired import desire
from tests.tap_setup.scene import Scene

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tap-setup.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_configuration_is_valid(text: str) -> None:
    assert desire(parse_config(text)).links


def test_every_key_is_explained() -> None:
    everything = parse_config(blocks("toml")[0])
    for table in (config.NamespaceTable, config.BridgeTable, config.TapTable, config.InterfaceTable):
        name = f"{table.__name__.removesuffix('Table').lower()}s"
        (given,) = getattr(everything, name)
        section = re.search(rf"^\[\[{name}\]\].*?(?=^$|\Z)", blocks("toml")[0], re.MULTILINE | re.DOTALL)
        assert section is not None
        keys = set(re.findall(r"^(\w+) =", section[0], re.MULTILINE))
        assert keys == set(table.__struct_fields__)
        assert isinstance(given, table)
    offloads = msgspec.structs.asdict(everything.interfaces[0].offloads)
    assert all(value is not None for value in offloads.values())


def test_the_commands_print_what_it_says(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "colo-tap-setup").write_text(f'#!/bin/sh\nexec {sys.executable} -m tap_setup "$@"\n')
    (tmp_path / "colo-tap-setup").chmod(0o755)
    (tmp_path / "taps.toml").write_text(blocks("toml")[1])
    written = "".join(blocks("console"))
    lines = [
        f"mount --bind {scene.device} /dev/net/tun",
        f"export PATH={tmp_path}:$PATH PYTHONPATH={ROOT}",
        f"cd {tmp_path}",
        "sysctl -q -w net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/default/rp_filter=0",
        "ip link add eth1 type veth peer name wire",
        "ip link set dev eth1 alias 'uplink to switch 3'",
    ]
    for command in re.findall(r"^\$ (.*)$", written, re.MULTILINE):
        lines += ["cat <<'END'", f"$ {command}", "END", f"{command} 2>&1"]
    script = tmp_path / "script"
    script.write_text("\n".join([*lines, "exit 0"]))
    assert scene.run(f"sh {script}") == written
