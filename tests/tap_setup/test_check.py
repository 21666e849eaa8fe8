"""Each property in turn is changed behind the program's back: `check` reports exactly that one."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from colo_compare.errors import SetupError
from tap_setup.namespaces import inside
from tap_setup.tun import TUNSETIFF, TapShape
from tests.tap_setup.scene import Scene, shell

TUNSETCARRIER = 0x400454E2  # include/uapi/linux/if_tun.h

CONFIG = """
[[bridges]]
name = "br-client"
namespace = "HERE"
mtu = 1500
ports = ["eth1"]
[[taps]]
name = "tap-pri"
owner = 65532
group = 65532
multi_queue = true
namespace = "HERE"
bridge = "br-client"
[[taps]]
name = "tap-sec"
owner = 65532
namespace = "HERE"
[[interfaces]]
name = "eth2"
namespace = "HERE"
mtu = 1400
offloads = { tx = true, tso = true, gro = true }
"""


@pytest.fixture(scope="module")
def made(tun_device: Path) -> Iterator[Scene]:
    """One scene for all the mutations: each of them is repaired by the test that made it."""
    name = f"tapsetup{os.getpid()}check"
    shell(f"ip netns add {name}")
    try:
        scene = Scene(name, tun_device)
        scene.run("ip link add eth1 type veth peer name wire1")
        scene.run("ip link add eth2 type veth peer name wire2")
        scene.run("ip link add br-other type bridge")
        yield scene
    finally:
        shell(f"ip netns delete {name}")


MUTATIONS = [
    ("tap-sec", "mtu", "ip link set dev tap-sec mtu 1400", "1400", "1500"),
    ("tap-pri", "arp", "ip link set dev tap-pri arp on", "on", "off"),
    ("tap-pri", "up", "ip link set dev tap-pri down", "off", "on"),
    ("tap-pri", "ipv6", "sysctl -w net/ipv6/conf/tap-pri/disable_ipv6=0", "on", "off"),
    ("tap-pri", "rp_filter", "sysctl -w net/ipv4/conf/tap-pri/rp_filter=0", "off", "on"),
    ("tap-pri", "address", "ip address add 10.9.9.1/24 dev tap-pri", "10.9.9.1/24", "none"),
    ("tap-pri", "master", "ip link set dev tap-pri nomaster", "none", "br-client"),
    ("tap-pri", "master", "ip link set dev tap-pri master br-other", "br-other", "br-client"),
    ("tap-sec", "master", "ip link set dev tap-sec master br-other", "br-other", "none"),
    ("br-client", "forward_delay", "ip link set dev br-client type bridge forward_delay 200", "200", "0"),
    ("br-client", "mcast_snooping", "ip link set dev br-client type bridge mcast_snooping 1", "1", "0"),
    ("br-client", "mtu", "ip link set dev br-client mtu 1280", "1280", "1500"),
    ("br-client", "address", "ip address add 10.9.9.1/24 dev br-client", "10.9.9.1/24", "none"),
    ("br-client", "up", "ip link set dev br-client down", "off", "on"),
    ("eth1", "master", "ip link set dev eth1 nomaster", "none", "br-client"),
    ("eth1", "arp", "ip link set dev eth1 arp on", "on", "off"),
    ("eth1", "up", "ip link set dev eth1 down", "off", "on"),
    ("eth2", "mtu", "ip link set dev eth2 mtu 1500", "1500", "1400"),
    ("eth2", "promisc", "ip link set dev eth2 promisc off", "off", "on"),
    ("eth2", "ipv6", "sysctl -w net/ipv6/conf/eth2/disable_ipv6=0", "on", "off"),
]
OFFLOADS = [
    ("eth2", "tx", "ethtool -K eth2 tx-checksum-ip-generic off", "off", "on"),
    ("eth2", "tso", "ethtool -K eth2 tso off", "off", "on"),
    (
        "eth2",
        "tso",
        "ethtool -K eth2 tx-tcp6-segmentation off",
        "tx-tcp-segmentation,tx-tcp-ecn-segmentation",
        "on",
    ),
    ("eth2", "gro", "ethtool -K eth2 gro off", "off", "on"),
]


def assert_found_and_repaired(scene: Scene, mutation: tuple[str, str, str, str, str]) -> None:
    link, key, command, have, want = mutation
    scene.create(CONFIG)
    assert scene.check(CONFIG).deviations == []

    scene.run(command)
    (found,) = scene.check(CONFIG).deviations
    assert (found.link, found.property, found.have, found.want) == (link, key, have, want)
    assert found.left_alone is None
    (change,) = scene.create(CONFIG).changes
    assert (change.link, change.what) == (link, f"{key} {have} -> {want}")
    assert scene.check(CONFIG).deviations == []

    # The fix that is printed does the same.
    scene.run(command)
    (found,) = scene.check(CONFIG).deviations
    (fix,) = found.fix
    subprocess.run(fix, shell=True, check=True, capture_output=True)
    assert scene.check(CONFIG).deviations == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation[0]}-{mutation[1]}")
def test_a_change_is_found_and_repaired(made: Scene, mutation: tuple[str, str, str, str, str]) -> None:
    assert_found_and_repaired(made, mutation)


@pytest.mark.parametrize("mutation", OFFLOADS, ids=lambda mutation: f"{mutation[0]}-{mutation[1]}")
def test_a_changed_offload_is_found_and_repaired(
    made: Scene, ethtool: None, mutation: tuple[str, str, str, str, str]
) -> None:
    assert_found_and_repaired(made, mutation)


def test_stp_brings_its_forward_delay(made: Scene) -> None:
    made.create(CONFIG)
    made.run("ip link set dev br-client type bridge stp_state 1")
    found = made.check(CONFIG).deviations
    assert [(one.link, one.property) for one in found] == [
        ("br-client", "stp_state"),
        ("br-client", "forward_delay"),
    ]
    made.create(CONFIG)
    assert made.check(CONFIG).deviations == []


def test_a_filtering_bridge(made: Scene) -> None:
    made.create(CONFIG)
    if "not supported" in made.run(
        "sh -c 'ip link set dev br-client type bridge vlan_filtering 1 2>&1 || true'"
    ):
        pytest.skip("needs a kernel with CONFIG_BRIDGE_VLAN_FILTERING")
    assert [found.property for found in made.check(CONFIG).deviations] == ["vlan_filtering"]
    made.create(CONFIG)
    assert made.check(CONFIG).deviations == []


def test_a_bridge_follows_its_ports_until_it_is_told(scene: Scene) -> None:
    config = CONFIG.replace('ports = ["eth1"]', "").split("[[interfaces]]")[0]
    config = config.replace("multi_queue = true", "mtu = 9000")
    assert scene.create(config).deviations == []
    assert scene.create(config).changes == []
    assert (scene.link("br-client")["mtu"], scene.link("tap-pri")["mtu"]) == (1500, 9000)


@pytest.mark.parametrize(
    ("key", "have", "want", "other"),
    [
        ("owner", "1", "65532", "ip tuntap add dev tap-sec mode tap vnet_hdr user 1"),
        ("owner", "none", "65532", "ip tuntap add dev tap-sec mode tap vnet_hdr"),
        ("group", "1", "none", "ip tuntap add dev tap-sec mode tap vnet_hdr user 65532 group 1"),
        ("vnet_hdr", "off", "on", "ip tuntap add dev tap-sec mode tap user 65532"),
        ("multi_queue", "on", "off", "ip tuntap add dev tap-sec mode tap vnet_hdr user 65532 multi_queue"),
        (
            "multi_queue,owner",
            "on,none",
            "off,65532",
            "ip tuntap add dev tap-sec mode tap vnet_hdr multi_queue",
        ),
    ],
)
def test_a_tap_of_another_shape(made: Scene, key: str, have: str, want: str, other: str) -> None:
    """Made by hand, and marked, with everything else as it should be."""
    made.destroy(CONFIG)
    made.run(other)
    for command in ("alias colo-tap-setup", "arp off", "up"):
        made.run(f"ip link set dev tap-sec {command}")
    made.run("sysctl -w net/ipv6/conf/tap-sec/disable_ipv6=1 net/ipv4/conf/tap-sec/rp_filter=1")
    found = [found for found in made.check(CONFIG).deviations if found.link == "tap-sec"]
    assert ",".join(one.property for one in found) == key
    assert ",".join(one.have for one in found) == have
    assert ",".join(one.want for one in found) == want
    assert {one.left_alone for one in found} == {None}
    assert found[0].fix == ("colo-tap-setup create -c taps.toml",)
    made.create(CONFIG)
    assert made.check(CONFIG).deviations == []
    data = made.link("tap-sec")["linkinfo"]["info_data"]
    assert data == {
        "type": "tap",
        "pi": False,
        "vnet_hdr": True,
        "multi_queue": False,
        "persist": True,
        "user": 65532,
    }


def test_another_owner_does_not_make_another_tap(made: Scene) -> None:
    # Whoever watches the link (an AF_PACKET socket) keeps it.
    made.create(CONFIG)
    index = made.link("tap-pri")["ifindex"]
    config = CONFIG.replace("owner = 65532\ngroup = 65532", "owner = 61234\ngroup = 61235")
    made.create(config)
    link = made.link("tap-pri")
    assert link["ifindex"] == index
    assert (link["linkinfo"]["info_data"]["user"], link["linkinfo"]["info_data"]["group"]) == (61234, 61235)


@pytest.mark.parametrize("queues", ["true", "false"])
def test_a_tap_in_use_keeps_its_shape(scene: Scene, queues: str) -> None:
    config = f'[[taps]]\nname = "t"\nowner = 65532\nnamespace = "HERE"\nmulti_queue = {queues}\n'
    scene.create(config)
    other = config.replace("65532", "61234")
    with attached(scene, "t", multi_queue=queues == "true"):
        assert scene.check(config).deviations == []
        (found,) = scene.create(other).deviations
        assert (found.property, found.left_alone) == ("owner", "a process has it open")
        assert found.fix == ("stop the process that has it open, then: colo-tap-setup create -c taps.toml",)
    assert scene.create(other).deviations == []
    assert scene.link("t")["linkinfo"]["info_data"]["user"] == 61234


def test_a_tap_in_use_that_hides_it_is_not_taken_away(scene: Scene) -> None:
    config = '[[taps]]\nname = "t"\nowner = 65532\nnamespace = "HERE"\n'
    scene.create(config)
    with attached(scene, "t", multi_queue=False) as descriptor:
        fcntl.ioctl(descriptor, TUNSETCARRIER, struct.pack("i", 0))
        for other in (config.replace("65532", "61234"), config + "multi_queue = true"):
            with pytest.raises(SetupError, match=r"cannot attach the tap t: .* busy; a process has it open"):
                scene.create(other)
    assert scene.link("t")["linkinfo"]["info_data"]["user"] == 65532


@pytest.mark.parametrize(
    "other", ["ip tuntap add dev t mode tap user 65532", "ip link add name t type bridge"]
)
def test_somebody_elses_link_is_left_alone(scene: Scene, other: str) -> None:
    scene.run(other)
    before = scene.links()
    config = '[[taps]]\nname = "t"\nowner = 65532\nnamespace = "HERE"\n'
    report = scene.create(config)
    assert report.changes == []
    (found,) = report.deviations
    assert (found.property, found.left_alone) == ("origin", "it may be in use")
    assert found.want == "a tap of colo-tap-setup"
    assert found.fix == (f"ip netns exec {scene.name} ip link delete dev t",)
    assert scene.links() == before


def test_our_own_bridge_is_no_tap(scene: Scene) -> None:
    scene.create('[[bridges]]\nname = "t"\nnamespace = "HERE"')
    (found,) = scene.create('[[taps]]\nname = "t"\nowner = 1\nnamespace = "HERE"').deviations
    assert (found.property, found.have) == ("origin", "someone else's bridge")


@pytest.mark.parametrize("use", ["interface", "port"])
@pytest.mark.parametrize(
    ("command", "key", "reason"),
    [
        ("ip address add 10.9.9.1/24 dev eth1", "address", "it has the address 10.9.9.1/24"),
        ("ip address add fd00::1/64 dev eth1", "address", "it has the address fd00::1/64"),
        ("ip link set dev eth1 master br-other", "master", "it is a port of br-other"),
    ],
)
def test_an_interface_in_use_is_left_alone(
    scene: Scene, use: str, command: str, key: str, reason: str
) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    scene.run("ip link add br-other type bridge")
    scene.run(command)
    before = scene.links()
    if use == "interface":
        config = '[[interfaces]]\nname = "eth1"\nnamespace = "HERE"'
    else:
        config = '[[bridges]]\nname = "b"\nnamespace = "HERE"\nports = ["eth1"]'
    report = scene.create(config)
    assert {found.left_alone for found in report.deviations} == {reason}
    assert key in {found.property for found in report.deviations}
    assert [link for link in scene.links() if link["ifname"] != "b"] == before


def test_a_tap_of_another_configuration_is_left_alone(scene: Scene) -> None:
    # Its mark must not be covered by a record of what it was like.
    scene.create('[[taps]]\nname = "t"\nowner = 65532\nnamespace = "HERE"')
    (found,) = scene.create('[[interfaces]]\nname = "t"\nnamespace = "HERE"').deviations
    assert (found.property, found.left_alone) == (
        "promisc",
        "colo-tap-setup made it: set it up where it is made",
    )
    assert scene.link("t")["ifalias"] == "colo-tap-setup"


def test_an_interface_that_is_not_there(scene: Scene) -> None:
    report = scene.create('[[interfaces]]\nname = "eth1"\nnamespace = "HERE"')
    (found,) = report.deviations
    assert (found.link, found.property, found.have) == ("eth1", "exists", "no")
    assert found.fix == ("plug it in, or correct its name or namespace",)


def test_what_is_missing_comes_with_the_commands_that_make_it(scene: Scene) -> None:
    config = CONFIG.replace('ports = ["eth1"]', "").split("[[interfaces]]")[0]
    report = scene.check(config)
    assert [(found.link, found.property) for found in report.deviations] == [
        ("br-client", "exists"),
        ("tap-pri", "exists"),
        ("tap-sec", "exists"),
    ]
    assert scene.links()[1:] == []
    for found in report.deviations:
        for command in found.fix:
            subprocess.run(command, shell=True, check=True, capture_output=True)
    report = scene.create(config)
    assert (report.changes, report.deviations) == ([], [])


def test_a_namespace_that_is_missing(scene: Scene) -> None:
    name = f"{scene.name}a"
    config = f'[[namespaces]]\nname = "{name}"\n[[taps]]\nname = "t"\nowner = 1\nnamespace = "{name}"'
    found = scene.check(config).deviations
    assert [(one.namespace, one.link, one.property, one.left_alone) for one in found] == [
        (name, None, "exists", None),
        (name, "t", "exists", None),
    ]
    assert not Path("/run/netns", name).exists()
    try:
        # Made by the printed commands it is ours, as if made by `create`.
        for one in found:
            for command in one.fix:
                subprocess.run(command, shell=True, check=True, capture_output=True)
        assert scene.create(config).changes == []
    finally:
        scene.destroy(config)
    assert not Path("/run/netns", name).exists()


def test_a_link_with_a_dot_in_its_name(scene: Scene) -> None:
    config = '[[taps]]\nname = "tap.100"\nowner = 65532\nnamespace = "HERE"\n'
    assert scene.create(config).deviations == []
    scene.run("sysctl -w net/ipv6/conf/tap.100/disable_ipv6=0")
    (found,) = scene.check(config).deviations
    subprocess.run(found.fix[0], shell=True, check=True, capture_output=True)
    assert scene.check(config).deviations == []


def test_check_changes_nothing(scene: Scene) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    scene.run("ip link add eth2 type veth peer name wire2")
    before = scene.links()
    assert scene.check(CONFIG).deviations != []
    assert scene.links() == before


@contextmanager
def attached(scene: Scene, name: str, *, multi_queue: bool) -> Iterator[int]:
    """Have a tap open, as a guest's VMM has."""
    descriptor = inside(scene.name, scene.device, lambda _: os.open(scene.device, os.O_RDWR))
    shape = TapShape(owner=0, group=None, multi_queue=multi_queue, vnet_hdr=True)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), shape.flags()))
        yield descriptor
    finally:
        os.close(descriptor)
