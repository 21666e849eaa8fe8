from pathlib import Path

import pytest

from colo_compare.errors import ConfigError
from tap_setup.config import OffloadsTable, load_config, parse_config

EVERYTHING = """
device = "/dev/tun"
[[namespaces]]
name = "guest-a"
[[bridges]]
name = "br-client"
namespace = "guest-a"
mtu = 9000
ports = ["eth1", "eth2"]
[[taps]]
name = "tap-pri"
owner = 65532
group = "kvm"
multi_queue = true
vnet_hdr = false
mtu = 9000
namespace = "guest-a"
bridge = "br-client"
[[interfaces]]
name = "eth3"
namespace = "/proc/1/ns/net"
mtu = 9000
promisc = false
offloads = { tx = false, gro = true }
"""


def test_reads_every_key() -> None:
    config = parse_config(EVERYTHING)
    assert config.device == "/dev/tun"
    assert [namespace.name for namespace in config.namespaces] == ["guest-a"]
    (bridge,) = config.bridges
    assert (bridge.name, bridge.namespace, bridge.mtu, bridge.ports) == (
        "br-client",
        "guest-a",
        9000,
        ("eth1", "eth2"),
    )
    (tap,) = config.taps
    assert (tap.name, tap.owner, tap.group, tap.multi_queue, tap.vnet_hdr) == (
        "tap-pri",
        65532,
        "kvm",
        True,
        False,
    )
    assert (tap.mtu, tap.namespace, tap.bridge) == (9000, "guest-a", "br-client")
    (interface,) = config.interfaces
    assert (interface.namespace, interface.mtu, interface.promisc) == ("/proc/1/ns/net", 9000, False)
    assert interface.offloads == OffloadsTable(tx=False, gro=True)


def test_a_tap_needs_a_name_and_an_owner_only() -> None:
    (tap,) = parse_config('[[taps]]\nname = "tap-pri"\nowner = "root"').taps
    assert (tap.group, tap.multi_queue, tap.vnet_hdr, tap.mtu) == (None, False, True, 1500)
    assert (tap.namespace, tap.bridge) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taps = 3", "$.taps: expected an array, got an integer: write [[taps]]"),
        ('[taps]\nname = "t"', "$.taps: expected an array, got a table: write [[taps]]"),
        ('[[taps]]\nname = "t"', "$.taps[0].owner: is missing, and has no default"),
        ("[[taps]]\nowner = 1", "$.taps[0].name: is missing, and has no default"),
        (
            '[[taps]]\nname = "t"\nowner = true',
            "$.taps[0].owner: expected an integer or a string, got true or false",
        ),
        ('[[taps]]\nname = "t"\nowner = -1', "$.taps[0].owner: expected an integer >= 0"),
        ('[[taps]]\nname = "t"\nowner = 4294967295', "$.taps[0].owner: expected an integer <= 4294967294"),
        ('[[taps]]\nname = "t"\nowner = ""', "$.taps[0].owner: expected a string of length >= 1"),
        ('[[taps]]\nname = "t"\nowner = 1\nmtu = 67', "$.taps[0].mtu: expected an integer >= 68"),
        ('[[taps]]\nname = "t"\nowner = 1\nmtu = 65522', "$.taps[0].mtu: expected an integer <= 65521"),
        (
            '[[taps]]\nname = "t"\nowner = 1\nmultiqueue = true',
            '$.taps[0].multiqueue: no such key; did you mean "multi_queue"?',
        ),
        (
            '[[taps]]\nname = "t"\nowner = 1\nvnet_hdr = "yes"',
            "$.taps[0].vnet_hdr: expected true or false, got a string",
        ),
        (
            '[[bridges]]\nname = "b"\nports = "eth1"',
            "$.bridges[0].ports: expected an array, got a string",
        ),
        (
            '[[interfaces]]\nname = "e"\noffloads = { tos = true }',
            '$.interfaces[0].offloads.tos: no such key; did you mean "tso"?',
        ),
        ('[[tap]]\nname = "t"', '$.tap: no such key; did you mean "taps"?'),
        (
            "x = 1",
            "$.x: no such key; known: device, namespaces, bridges, taps, interfaces",
        ),
    ],
)
def test_says_where_a_mistake_is(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert str(caught.value) == message


def test_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "taps.toml"
    file.write_text(EVERYTHING, encoding="utf-8")
    assert load_config(file) == parse_config(EVERYTHING)


def test_names_the_file_that_it_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "taps.toml"
    with pytest.raises(ConfigError, match=rf"^{file}: cannot be read: No such file"):
        load_config(file)
    file.write_bytes(b'device = "\xff"')
    with pytest.raises(ConfigError, match=rf"^{file}: is not UTF-8 text \(byte 10\)"):
        load_config(file)
    file.write_text("[[taps]")
    with pytest.raises(ConfigError, match=rf"^{file}: is not TOML: .*line 1"):
        load_config(file)
