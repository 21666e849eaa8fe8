"""What the kernel does not do although it was told, and what it tells of odd links."""

from pathlib import Path

import pytest

from colo_compare.errors import SetupError
from tap_setup.host import Host, LinkState, device_trouble
from tap_setup.namespaces import inside
from tests.tap_setup.scene import Scene

INTERFACE = '[[interfaces]]\nname = "eth1"\nnamespace = "HERE"\nmtu = 1400\n'


@pytest.fixture
def interface(scene: Scene) -> Scene:
    scene.run("ip link add eth1 type veth peer name wire")
    return scene


def test_every_value_is_read_back(interface: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "set", lambda *_: None)
    with pytest.raises(
        SetupError, match="eth1: ipv6 was set to off and is still on; see what else configures"
    ):
        interface.create(INTERFACE)


def test_every_value_that_is_put_back_is_read(interface: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    interface.create(INTERFACE)
    alias = interface.link("eth1")["ifalias"]
    monkeypatch.setattr(Host, "set", lambda *_: None)
    with pytest.raises(SetupError, match="eth1: ipv6 was put back to on and is off; set it by hand"):
        interface.destroy(INTERFACE)
    assert interface.link("eth1")["ifalias"] == alias


def test_a_link_that_goes_away_meanwhile(interface: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Host.set

    def set_or_delete(host: Host, state: LinkState, key: str, value: str) -> None:
        if key == "up":
            host.delete(state)
        else:
            real(host, state, key, value)

    monkeypatch.setattr(Host, "set", set_or_delete)
    with pytest.raises(SetupError, match="eth1 went away while it was set up"):
        interface.create(INTERFACE)


def test_a_kernel_without_ipv6(interface: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tap_setup.host._SYSCTLS", {"ipv6": ("ipv7/conf/{}/disable_ipv6", "0", "1")})
    assert read(interface, "eth1").values["ipv6"] == "off"


def test_a_tun_is_no_tap(scene: Scene) -> None:
    scene.run("ip tuntap add dev t mode tun")
    state = read(scene, "t")
    assert (state.kind, state.attached) == ("tun", False)
    assert "owner" not in state.values


def test_offloads_that_are_fixed(scene: Scene) -> None:
    # The loopback's checksums are always on, and it has no LRO: net/core/loopback.c.
    values = read(scene, "lo").values
    assert (values["tx"], values["lro"]) == ("on", "off")


def read(scene: Scene, name: str) -> LinkState:
    state = inside(scene.name, scene.device, lambda host: host.read(name))
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "trouble"),
    [
        (0o666, 1, None, None),
        (0o600, 0, None, None),
        (0o600, 1, None, "mode 0600 of 0:0"),
        (0o660, 1, 0, None),
        (0o660, 1, 1, "mode 0660 of 0:0"),
        (0o664, 1, None, "mode 0664 of 0:0"),
        (0o606, 1, 0, "mode 0606 of 0:0"),  # the group's bits count for its members, not everybody's
    ],
)
def test_who_may_open_the_device(
    scene: Scene, mode: int, uid: int, gid: int | None, trouble: str | None
) -> None:
    before = scene.device.stat().st_mode
    scene.device.chmod(mode)
    try:
        assert device_trouble(scene.device, uid, gid) == trouble
    finally:
        scene.device.chmod(before & 0o777)


def test_a_device_that_is_none(tmp_path: Path) -> None:
    assert device_trouble(tmp_path / "tun", 0, None) == "No such file or directory"
    (tmp_path / "tun").touch()
    assert device_trouble(tmp_path / "tun", 0, None) == "no character device"
