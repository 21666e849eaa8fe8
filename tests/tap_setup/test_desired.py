import pwd

import pytest

from colo_compare.errors import ConfigError
from tap_setup.config import parse_config
from tap_setup.desired import BRIDGE, EXISTING, TAP, Desired, desire

SILENT = {"ipv6": "off", "rp_filter": "on", "arp": "off", "address": "none"}


def desired(text: str) -> Desired:
    return desire(parse_config(text))


def test_a_tap() -> None:
    (link,) = desired('[[taps]]\nname = "t"\nowner = 65532\nbridge = "b"').links
    assert (link.name, link.namespace, link.kind) == ("t", None, TAP)
    assert link.want == {
        "multi_queue": "off",
        "owner": "65532",
        "group": "none",
        "vnet_hdr": "on",
        "mtu": "1500",
        **SILENT,
        "master": "b",
        "up": "on",
    }


def test_a_bridge_and_its_ports() -> None:
    bridge, port = desired('[[bridges]]\nname = "b"\nnamespace = "n"\nports = ["eth1"]').links
    assert (bridge.name, bridge.namespace, bridge.kind) == ("b", "n", BRIDGE)
    assert bridge.want == {
        "stp_state": "0",
        "forward_delay": "0",
        "mcast_snooping": "0",
        "vlan_filtering": "0",
        **SILENT,
        "up": "on",
    }
    assert (port.name, port.namespace, port.kind) == ("eth1", "n", EXISTING)
    assert port.want == {**SILENT, "lro": "off", "master": "b", "up": "on"}


def test_an_interface() -> None:
    (link,) = desired('[[interfaces]]\nname = "e"\nmtu = 9000\noffloads = { gro = true, tx = false }').links
    assert (link.name, link.kind) == ("e", EXISTING)
    assert link.want == {
        **SILENT,
        "mtu": "9000",
        "tx": "off",
        "gro": "on",
        "lro": "off",
        "master": "none",
        "promisc": "on",
        "up": "on",
    }


def test_stp_goes_off_before_the_forward_delay() -> None:
    # With STP on, the kernel takes no forward delay below two seconds.
    (bridge,) = desired('[[bridges]]\nname = "b"').links
    order = list(bridge.want)
    assert order.index("stp_state") < order.index("forward_delay")


@pytest.mark.parametrize(
    "text",
    ['[[bridges]]\nname = "b"', '[[taps]]\nname = "t"\nowner = 1', '[[interfaces]]\nname = "e"'],
)
def test_a_link_goes_up_when_it_is_silent(text: str) -> None:
    (link,) = desired(text).links
    assert list(link.want)[-1] == "up"


def test_bridges_come_before_what_joins_them() -> None:
    text = """
    [[interfaces]]
    name = "eth2"
    [[taps]]
    name = "t"
    owner = 1
    bridge = "b"
    [[bridges]]
    name = "b"
    ports = ["eth1"]
    """
    assert [link.name for link in desired(text).links] == ["b", "t", "eth1", "eth2"]


def test_owners_by_name() -> None:
    root = pwd.getpwuid(0).pw_name
    (link,) = desired(f'[[taps]]\nname = "t"\nowner = "{root}"\ngroup = "root"').links
    assert (link.want["owner"], link.want["group"]) == ("0", "0")


TAP_T = '[[taps]]\nname = "t"\nowner = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[taps]]\nname = "t"\nowner = "nemo x"', r"^\$\.taps\[0\]\.owner: no user 'nemo x'"),
        ('[[taps]]\nname = "t"\nowner = 1\ngroup = "nemo x"', r"^\$\.taps\[0\]\.group: no group 'nemo x'"),
        ('[[taps]]\nname = "a b"\nowner = 1', r"^\$\.taps\[0\]\.name: 'a b' cannot name an interface"),
        ('[[taps]]\nname = "tap%d"\nowner = 1', r"^\$\.taps\[0\]\.name: 'tap%d' cannot name an interface"),
        ('[[taps]]\nname = ".."\nowner = 1', r"^\$\.taps\[0\]\.name: '\.\.' cannot name"),
        ('[[taps]]\nname = ""\nowner = 1', r"^\$\.taps\[0\]\.name: '' cannot name"),
        ('[[taps]]\nname = "ääääääää"\nowner = 1', r"^\$\.taps\[0\]\.name: 'ä+' cannot name"),
        (TAP_T + 'bridge = "a/b"', r"^\$\.taps\[0\]\.bridge: 'a/b' cannot name"),
        (TAP_T + 'namespace = "a/b"', r"^\$\.taps\[0\]\.namespace: 'a/b' is not a namespace"),
        (TAP_T + 'namespace = ""', r"^\$\.taps\[0\]\.namespace: '' is not a namespace"),
        ('[[namespaces]]\nname = "/run/netns/x"', r"^\$\.namespaces\[0\]\.name: '/run/netns/x' is a path"),
        ('[[namespaces]]\nname = ".."', r"^\$\.namespaces\[0\]\.name: '\.\.' is not a namespace"),
        (
            '[[namespaces]]\nname="a"\n[[namespaces]]\nname="a"',
            r"^\$\.namespaces\[1\]\.name: a is named twice",
        ),
        (TAP_T + TAP_T, r"^\$\.taps\[1\]\.name: t is used already at \$\.taps\[0\]\.name"),
        (TAP_T + '[[bridges]]\nname = "t"', r"^\$\.taps\[0\]\.name: t is used already at \$\.bridges\[0\]"),
        (
            '[[bridges]]\nname = "b"\nports = ["e"]\n[[interfaces]]\nname = "e"',
            r"^\$\.bridges\[0\]\.ports\[0\]: e is used already at \$\.interfaces\[0\]\.name",
        ),
        (
            '[[bridges]]\nname = "b"\nports = ["e", "e"]',
            r"^\$\.bridges\[0\]\.ports\[1\]: e is used already at \$\.bridges\[0\]\.ports\[0\]",
        ),
        (
            TAP_T + '[[bridges]]\nname = "b"\nports = ["t"]',
            r"^\$\.bridges\[0\]\.ports\[0\]: t is a tap of this file: write `bridge` in its table",
        ),
        ('[[bridges]]\nname = "b"\nports = [":"]', r"^\$\.bridges\[0\]\.ports\[0\]: ':' cannot name"),
    ],
)
def test_says_where_a_mistake_is(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        desired(text)


def test_one_name_may_be_used_in_two_namespaces() -> None:
    text = TAP_T + 'namespace = "a"\n' + TAP_T + 'namespace = "b"\n' + TAP_T
    assert [link.namespace for link in desired(text).links] == ["a", "b", None]
