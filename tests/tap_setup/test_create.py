"""What `create` makes, read with ip(8), ethtool(8) and /proc/sys."""

import pytest

from colo_compare.errors import SetupError
from tap_setup.report import Report
from tests.tap_setup.scene import Scene, shell

TAP = """
[[taps]]
name = "tap-pri"
owner = 65532
group = 65533
multi_queue = true
mtu = 9000
namespace = "HERE"
"""
PLAIN_TAP = """
[[taps]]
name = "tap-sec"
owner = 61234
vnet_hdr = false
namespace = "HERE"
"""
BRIDGE = """
[[bridges]]
name = "br-client"
namespace = "HERE"
ports = ["eth1"]
"""
INTERFACE = """
[[interfaces]]
name = "eth1"
namespace = "HERE"
mtu = 1400
offloads = { tx = false, tso = false, uso = false, gso = false, gro = true }
"""


def silent(scene: Scene, name: str) -> bool:
    link = scene.link(name)
    return (
        "NOARP" in link["flags"]
        and "UP" in link["flags"]
        and not link["addr_info"]
        and scene.sysctl(f"ipv6/conf/{name}/disable_ipv6") == "1"
        and scene.sysctl(f"ipv4/conf/{name}/rp_filter") == "1"
    )


def done(report: Report) -> list[str]:
    return [change.what for change in report.changes]


def test_makes_a_tap(scene: Scene) -> None:
    report = scene.create(TAP)
    assert done(report)[0] == "made a tap: multi_queue on, owner 65532, group 65533, vnet_hdr on"
    assert report.deviations == []
    link = scene.link("tap-pri")
    assert link["linkinfo"]["info_kind"] == "tun"
    assert link["linkinfo"]["info_data"] == {
        "type": "tap",
        "pi": False,
        "vnet_hdr": True,
        "multi_queue": True,
        "numqueues": 0,
        "numdisabled": 0,
        "persist": True,
        "user": 65532,
        "group": 65533,
    }
    assert link["mtu"] == 9000
    assert link["ifalias"] == "colo-tap-setup"
    assert silent(scene, "tap-pri")


def test_makes_a_tap_with_one_queue_and_no_header(scene: Scene) -> None:
    scene.create(PLAIN_TAP)
    data = scene.link("tap-sec")["linkinfo"]["info_data"]
    assert (data["multi_queue"], data["vnet_hdr"], data["user"]) == (False, False, 61234)
    assert "group" not in data
    assert scene.run("ip tuntap show dev tap-sec").strip() == "tap-sec: tap persist user 61234"


def test_makes_a_bridge_that_is_a_wire(scene: Scene) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    scene.create(BRIDGE + TAP + 'bridge = "br-client"')
    bridge = scene.link("br-client")
    data = bridge["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"]) == (0, 0)
    assert (data["mcast_snooping"], data["vlan_filtering"]) == (0, 0)
    assert bridge["ifalias"] == "colo-tap-setup"
    assert silent(scene, "br-client")
    for port in ("eth1", "tap-pri"):
        assert scene.link(port)["master"] == "br-client"
        assert silent(scene, port)


def test_a_bridge_may_have_an_mtu_of_its_own(scene: Scene) -> None:
    scene.create('[[bridges]]\nname = "br-client"\nnamespace = "HERE"\nmtu = 9000')
    assert scene.link("br-client")["mtu"] == 9000


def test_prepares_an_interface(scene: Scene, ethtool: None) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    report = scene.create(INTERFACE)
    assert report.deviations == []
    assert silent(scene, "eth1")
    link = scene.link("eth1")
    assert link["mtu"] == 1400
    assert "PROMISC" in link["flags"]
    offloads = scene.offloads("eth1")
    assert offloads["tx-checksum-ip-generic"] == "off"
    assert offloads["tx-tcp-segmentation"] == "off"
    assert offloads["tx-tcp6-segmentation"] == "off"
    assert offloads["tx-udp-segmentation"] == "off"
    assert offloads["generic-segmentation-offload"] == "off"
    assert offloads["generic-receive-offload"] == "on"


def test_names_on_the_link_what_it_was_like(scene: Scene) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    scene.run("ip link set dev eth1 alias 'uplink to switch 3'")
    scene.create('[[interfaces]]\nname = "eth1"\nnamespace = "HERE"\nmtu = 1400')
    assert scene.link("eth1")["ifalias"] == (
        "colo-tap-setup was ipv6=on rp_filter=off arp=on mtu=1500 promisc=off up=off | uplink to switch 3"
    )


def test_a_second_run_changes_nothing(scene: Scene) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    config = BRIDGE + TAP + 'bridge = "br-client"' + PLAIN_TAP
    assert scene.create(config).changes != []
    before = scene.links()
    report = scene.create(config)
    assert (report.changes, report.deviations) == ([], [])
    assert scene.links() == before


def test_makes_a_namespace_and_what_is_in_it(scene: Scene) -> None:
    name = f"{scene.name}a"
    config = f'[[namespaces]]\nname = "{name}"\n' + TAP.replace("HERE", name)
    try:
        report = scene.create(config)
        assert report.deviations == []
        assert "tap-pri" in shell(f"ip -n {name} tuntap show")
        assert "alias colo-tap-setup" in shell(f"ip -n {name} link show dev lo")
        assert scene.create(config).changes == []
        assert scene.links()[1:] == []
    finally:
        scene.destroy(config)
    assert name not in shell("ip netns list")


def test_a_namespace_may_be_a_path(scene: Scene) -> None:
    scene.create(TAP.replace("HERE", f"/run/netns/{scene.name}"))
    assert scene.link("tap-pri")["mtu"] == 9000


def test_a_namespace_that_nobody_declared_is_not_made(scene: Scene) -> None:
    report = scene.create(TAP.replace("HERE", f"{scene.name}-nowhere"))
    assert report.changes == []
    assert [(found.link, found.property) for found in report.deviations] == [
        (None, "exists"),
        ("tap-pri", "exists"),
    ]
    assert f"{scene.name}-nowhere" not in shell("ip netns list")


def test_the_tun_device_must_be_open_to_the_owner(scene: Scene) -> None:
    scene.device.chmod(0o600)
    try:
        (found,) = scene.create(TAP).deviations
        assert (found.property, found.have) == ("device", "mode 0600 of 0:0")
        assert found.fix == (f"chmod 0666 {scene.device}",)
        assert scene.create('[[taps]]\nname = "t"\nowner = 0\nnamespace = "HERE"').deviations == []
        scene.device.chmod(0o660)
        assert [found.property for found in scene.check(TAP).deviations] == ["device"]
    finally:
        scene.device.chmod(0o666)
    assert scene.check(TAP).deviations == []


def test_a_refusal_ends_the_run_and_what_was_done_is_told(scene: Scene) -> None:
    report = Report()
    from tap_setup.create import create

    with pytest.raises(SetupError, match="cannot put tap-sec into br0: there is no such bridge"):
        create(scene.desire(TAP + PLAIN_TAP + 'bridge = "br0"'), "taps.toml", report)
    links = {change.link for change in report.changes}
    assert links == {"tap-pri", "tap-sec"}
    assert {link["ifname"] for link in scene.links()} == {"lo", "tap-pri", "tap-sec"}
    # The next run goes on from there.
    scene.run("ip link add br0 type bridge")
    report = scene.create(TAP + PLAIN_TAP + 'bridge = "br0"')
    assert done(report) == ["master none -> br0", "up off -> on"]


def test_an_offload_that_the_driver_does_not_have(scene: Scene) -> None:
    scene.run("ip link add eth1 type veth peer name wire")
    config = '[[interfaces]]\nname = "eth1"\nnamespace = "HERE"\noffloads = { lro = true }'
    with pytest.raises(SetupError, match="cannot set lro of eth1 to on: its driver cannot change it"):
        scene.create(config)


def test_a_namespace_that_is_none(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("ns") / "net"
    file.touch()
    with pytest.raises(SetupError, match=rf"cannot enter the namespace {file}: Invalid argument"):
        scene.create(TAP.replace("HERE", str(file)))
