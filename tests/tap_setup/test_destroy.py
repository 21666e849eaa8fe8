"""What `destroy` takes away, and what it does not."""

import pytest

from colo_compare.errors import SetupError
from tap_setup.report import Report
from tests.tap_setup.scene import Scene, shell

CONFIG = """
[[bridges]]
name = "br-client"
namespace = "HERE"
ports = ["eth1"]
[[taps]]
name = "tap-pri"
owner = 65532
multi_queue = true
mtu = 9000
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
offloads = { tx = false, tso = false, gso = false, gro = true }
"""


def told(report: Report) -> list[tuple[str | None, str]]:
    return [(change.link, change.what) for change in report.changes]


@pytest.fixture
def before(scene: Scene) -> Scene:
    """Two interfaces in use by nobody, up as an administrator left them."""
    scene.run("sysctl -w net/ipv6/conf/default/accept_dad=0 net/ipv4/conf/all/rp_filter=0")
    for name, peer in (("eth1", "wire1"), ("eth2", "wire2")):
        scene.run(f"ip link add {name} type veth peer name {peer}")
        scene.run(f"ip link set dev {name} up")
        scene.run(f"ip link set dev {peer} up")
    scene.run("ip link set dev eth2 alias 'uplink to switch 3'")
    return scene


def test_leaves_everything_as_it_was(before: Scene, ethtool: None) -> None:
    scene = before
    links = scene.links()
    offloads = [scene.offloads(name) for name in ("eth1", "eth2")]
    sysctls = scene.run("sysctl -a --pattern '^net.ipv[46].conf'")
    assert scene.create(CONFIG).deviations == []
    assert scene.links() != links
    scene.destroy(CONFIG)
    assert scene.links() == links
    assert [scene.offloads(name) for name in ("eth1", "eth2")] == offloads
    assert scene.run("sysctl -a --pattern '^net.ipv[46].conf'") == sysctls


def test_tells_what_it_did(before: Scene) -> None:
    before.create(CONFIG)
    assert told(before.destroy(CONFIG)) == [
        ("eth2", "promisc on -> off"),
        ("eth2", "gro on -> off"),
        ("eth2", "gso off -> on"),
        ("eth2", "tso off -> on"),
        ("eth2", "tx off -> on"),
        ("eth2", "mtu 1400 -> 1500"),
        ("eth2", "arp off -> on"),
        ("eth2", "rp_filter on -> off"),
        ("eth2", "ipv6 off -> on"),
        ("eth1", "master br-client -> none"),
        ("eth1", "arp off -> on"),
        ("eth1", "rp_filter on -> off"),
        ("eth1", "ipv6 off -> on"),
        ("tap-sec", "removed"),
        ("tap-pri", "removed"),
        ("br-client", "removed"),
    ]


def test_a_second_run_changes_nothing(before: Scene) -> None:
    before.create(CONFIG)
    before.destroy(CONFIG)
    links = before.links()
    report = before.destroy(CONFIG)
    assert (report.changes, report.left, report.kept) == ([], [], [])
    assert before.links() == links


def test_puts_back_only_some_features_of_a_group(before: Scene, ethtool: None) -> None:
    scene = before
    scene.run("ethtool -K eth2 tx-tcp6-segmentation off")
    offloads = scene.offloads("eth2")
    scene.create(CONFIG)
    assert scene.offloads("eth2")["tx-tcp-segmentation"] == "off"
    scene.destroy(CONFIG)
    assert scene.offloads("eth2") == offloads


def test_what_was_prepared_twice_goes_back_to_the_first(before: Scene) -> None:
    scene = before
    scene.create(CONFIG)
    scene.create(CONFIG.replace("mtu = 1400", "mtu = 1300"))
    assert scene.link("eth2")["mtu"] == 1300
    scene.destroy(CONFIG)
    assert scene.link("eth2")["mtu"] == 1500
    assert scene.link("eth2")["ifalias"] == "uplink to switch 3"


@pytest.mark.parametrize(
    "other", ["ip tuntap add dev tap-sec mode tap", "ip link add name tap-sec type bridge"]
)
def test_never_takes_somebody_elses_link(scene: Scene, other: str) -> None:
    scene.run(other)
    links = scene.links()
    report = scene.destroy(CONFIG)
    assert report.changes == []
    assert [(left.link, left.what) for left in report.left] == [("tap-sec", "was not made by colo-tap-setup")]
    assert scene.links() == links


def test_an_interface_that_nobody_prepared_is_not_touched(before: Scene) -> None:
    links = before.links()
    report = before.destroy(CONFIG)
    assert (report.changes, report.left) == ([], [])
    assert before.links() == links


def test_knows_a_link_that_was_renamed(scene: Scene) -> None:
    scene.create(CONFIG)
    scene.run("ip link set dev tap-sec down name tap-new")
    scene.destroy(CONFIG.replace("tap-sec", "tap-new"))
    assert [link["ifname"] for link in scene.links()] == ["lo"]


def test_removes_a_namespace_that_it_made(scene: Scene) -> None:
    name = f"{scene.name}a"
    config = f'[[namespaces]]\nname = "{name}"\n' + CONFIG.replace("HERE", name)
    namespaces = shell("ip netns list")
    scene.create(config)
    report = scene.destroy(config)
    assert (report.changes[-1].link, report.changes[-1].what) == (None, "removed")
    assert shell("ip netns list") == namespaces
    assert scene.destroy(config).changes == []


def test_keeps_a_namespace_that_somebody_made(scene: Scene) -> None:
    config = '[[namespaces]]\nname = "HERE"\n' + CONFIG
    scene.create(config)
    report = scene.destroy(config)
    assert [(left.namespace, left.what) for left in report.left] == [
        (scene.name, "was not made by colo-tap-setup")
    ]
    assert report.kept == []
    assert [link["ifname"] for link in scene.links()] == ["lo"]


def test_keeps_a_namespace_that_holds_somebody_elses_link(scene: Scene) -> None:
    name = f"{scene.name}a"
    config = f'[[namespaces]]\nname = "{name}"\n'
    scene.create(config)
    try:
        shell(f"ip -n {name} link add name br-other type bridge")
        report = scene.destroy(config)
        assert [(kept.namespace, kept.what) for kept in report.kept] == [
            (name, "holds br-other: move or delete that, then again")
        ]
        assert "br-other" in shell(f"ip -n {name} link show")
        shell(f"ip -n {name} link delete dev br-other")
        assert scene.destroy(config).kept == []
        assert name not in shell("ip netns list")
    finally:
        shell(f"ip netns delete {name} 2>/dev/null || true")


def test_says_so_when_a_value_does_not_go_back(before: Scene) -> None:
    # An address above makes the kernel refuse nothing, and an MTU above what the record says is no error
    # either: only something that cannot be set is. Here the record was edited by hand.
    before.create(CONFIG)
    before.run("ip link set dev eth2 alias 'colo-tap-setup was mtu=99999999'")
    with pytest.raises(SetupError, match="cannot set the MTU of eth2 to 99999999: Invalid argument"):
        before.destroy(CONFIG)
