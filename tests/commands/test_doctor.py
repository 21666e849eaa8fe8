"""The doctor: each illness made, and its fix read."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from colo_compare import cli
from colo_compare.checkpoint.command import CommandOptions
from colo_compare.checkpoint.null import NullOptions
from colo_compare.checkpoint.qemu_options import QemuOptions
from colo_compare.commands import doctor
from colo_compare.commands.doctor import account as accounts
from colo_compare.commands.doctor import backend, machine, ports
from colo_compare.commands.doctor.account import CAP_NET_ADMIN, CAP_NET_RAW, Account
from colo_compare.commands.doctor.finding import BAD, DOUBTFUL, GOOD, Finding
from colo_compare.config import CheckpointerTable, PortsTable
from colo_compare.core.settings import OBSERVE, PROTECT
from colo_compare.errors import ConfigError
from colo_compare.ports.url import PacketTarget, TapTarget, parse_port_url
from tap_setup import desired
from tap_setup.host import LinkState
from tests.daemon_rig import memory_rig

SILENT = {
    desired.UP: "on", desired.MTU: "1500", desired.ADDRESS: "none", desired.MASTER: "none",
    desired.IPV6: "off", desired.ARP: "off", desired.LRO: "off",
}  # fmt: skip
TAP = {desired.OWNER: "65532", desired.MULTI_QUEUE: "off", desired.VNET_HDR: "on"}
NOBODY = Account("proxy", 65532, 65532, 0)
CAPABLE = Account("proxy", 65532, 65532, 1 << CAP_NET_RAW | 1 << CAP_NET_ADMIN)


def interface(
    url: str, values: dict[str, str] | None, account: Account = CAPABLE, kind: str = "veth", **state: Any
) -> list[Finding]:
    """What is said of an interface with these properties; None: there is none."""
    target = parse_port_url(url).target
    assert isinstance(target, PacketTarget | TapTarget)
    link = None
    if values is not None:
        link = LinkState(target.interface, 7, kind, "", {**SILENT, **values}, state.pop("attached", False))
    return list(ports._interface("a port", target, link, ["lo", "eth0"], account, running=False))


def test_a_healthy_interface_and_a_healthy_tap() -> None:
    (one,) = interface("packet:eth0", {})
    assert (one.state, one.text) == (GOOD, "eth0: up, MTU 1500, no address, the host is silent on it")
    (two,) = interface("tap:t0", TAP, NOBODY, desired.TAP)
    assert two.state == GOOD


@pytest.mark.parametrize(
    ("url", "values", "state", "words", "fix"),
    [
        ("packet:e", None, BAD, "there is no interface e here (there are: eth0)", "correct its name"),
        ("packet:e", {desired.UP: "off"}, BAD, "e is down", "ip link set dev e up"),
        ("packet:e", {desired.MASTER: "br0"}, BAD, "is a port of br0", "ip link set dev e nomaster"),
        ("packet:e", {desired.ADDRESS: "10.0.0.1/8"}, BAD, "has the address", "ip address flush dev e"),
        (
            "packet:e",
            {desired.IPV6: "on"},
            DOUBTFUL,
            "speaks IPv6",
            "sysctl -w net.ipv6.conf.e.disable_ipv6=1",
        ),
        ("packet:e", {desired.ARP: "on"}, DOUBTFUL, "answers ARP", "ip link set dev e arp off"),
        ("packet:e", {desired.LRO: "on"}, DOUBTFUL, "(LRO)", "ethtool -K e lro off"),
        ("tap:e", {}, BAD, "e is no tap but veth", "write packet:e"),
    ],
)
def test_what_is_wrong_with_an_interface(
    url: str, values: dict[str, str] | None, state: str, words: str, fix: str
) -> None:
    (found,) = interface(url, values)
    assert found.state == state
    assert words in found.text
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("values", "account", "attached", "state", "words"),
    [
        (None, NOBODY, False, BAD, "there is no interface e"),
        (None, CAPABLE, False, GOOD, "tap e will be made"),
        ({**TAP, desired.OWNER: "7"}, NOBODY, False, BAD, "belongs to uid 7, not to proxy (65532)"),
        (TAP, NOBODY, True, BAD, "is open in another process"),
        ({**TAP, desired.VNET_HDR: "off"}, NOBODY, False, DOUBTFUL, "no virtio-net headers"),
    ],
)
def test_what_is_wrong_with_a_tap(
    values: dict[str, str] | None, account: Account, attached: bool, state: str, words: str
) -> None:
    (found,) = interface("tap:e", values, account, desired.TAP, attached=attached)
    assert found.state == state
    assert words in found.text
    assert found.fix or state == GOOD


def test_packet_ports_need_a_capability() -> None:
    (found,) = interface("packet:e", {}, NOBODY)
    assert (found.state, found.fix[:40]) == (BAD, "systemd: AmbientCapabilities=CAP_NET_RAW")
    assert interface("packet:e", {}, Account("another", 5, 5, None))[0].state == GOOD


def test_interfaces_should_have_one_mtu() -> None:
    links = {side: LinkState(side, 1, "veth", "", SILENT, False) for side in ("client", "primary")}
    assert [found.state for found in ports._mtu({"client": "1500", "primary": "1500"}, links)] == [GOOD]
    (found,) = ports._mtu({"client": "1500", "primary": "9000"}, links)
    assert (found.state, found.fix) == (DOUBTFUL, "ip link set dev NAME mtu 9000, on those that have less")
    assert list(ports._mtu({}, {})) == []


def test_ports_that_are_sockets(tmp_path: Path) -> None:
    def look(url: str, account: Account = NOBODY) -> Finding:
        return ports._socket("a port", parse_port_url(url).target, account, running=False)

    place = tmp_path / "x.sock"
    assert (
        look(f"stream+unix://{tmp_path}/no/x.sock?listen=yes").text == f"there is no directory {tmp_path}/no"
    )
    assert look(f"stream+unix://{place}?listen=yes").fix == f"chown proxy {tmp_path}"
    assert look(f"stream+unix://{place}?listen=yes", Account("root", 0, 0, -1)).state == GOOD
    assert look(f"stream+unix://{place}").state == DOUBTFUL
    assert look(f"dgram+unix://{place}?peer={tmp_path}/y", Account("root", 0, 0, -1)).state == GOOD
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        assert look(f"stream+unix://{place}").state == GOOD
    assert look("stream+tcp://127.0.0.1:9000").state == GOOD


def test_the_ports_of_this_machine() -> None:
    table = PortsTable(client="packet:lo", primary="packet:no-such-if", secondary="memory:x")
    found = {each.about: each for each in ports.look_at_ports(table, CAPABLE, running=False)}
    assert found["client port"].state == DOUBTFUL  # the host speaks on it
    assert "there is no interface no-such-if here" in found["primary port"].text
    assert found["secondary port"].state == GOOD


def test_the_tun_device_is_for_taps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "device_trouble", lambda *_: "mode 0600 of 0:0")
    taps = PortsTable(client="packet:lo", primary="tap:no-such-1", secondary="tap:no-such-2")
    found = [each for each in ports.look_at_ports(taps, NOBODY, running=False) if each.about == "tun device"]
    assert [each.text for each in found] == ["/dev/net/tun cannot be opened by proxy: mode 0600 of 0:0"]
    plain = PortsTable(client="packet:lo", primary="memory:p", secondary="memory:s")
    assert all(each.about != "tun device" for each in ports.look_at_ports(plain, NOBODY, running=False))


# The machine


@pytest.mark.parametrize(
    ("release", "state"), [("6.18.44-x", GOOD), ("4.20", GOOD), ("4.19.0", BAD), ("5.4rc1", GOOD)]
)
def test_kernels(release: str, state: str) -> None:
    assert machine._kernel(release).state == state


def test_clocks(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    assert machine._clock_source(path).state == GOOD
    for name, state in (("tsc", GOOD), ("hpet", DOUBTFUL)):
        path.write_text(f"{name}\n")
        assert machine._clock_source(path).state == state
    assert [machine._synchronized(state).state for state in (0, -1, 5)] == [GOOD, GOOD, DOUBTFUL]
    assert machine._adjtimex() >= 0


def test_buffers(tmp_path: Path) -> None:
    path = tmp_path / "rmem_max"
    assert machine._buffers(path).state == GOOD
    path.write_text("212992\n")
    assert machine._buffers(path).fix.startswith("sysctl -w net.core.rmem_max=16777216")
    path.write_text("16777216\n")
    assert machine._buffers(path).state == GOOD


def test_places_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Account("root", 0, 0, -1)
    assert machine._control(tmp_path / "no" / "c.sock", root, running=False).state == BAD
    assert machine._control(tmp_path / "c.sock", NOBODY, running=False).fix == f"chown proxy {tmp_path}"
    assert machine._control(tmp_path / "c.sock", root, running=False).state == GOOD
    assert machine._captures(tmp_path, 1, root).state == GOOD
    assert machine._captures(tmp_path, 1 << 60, root).state == DOUBTFUL
    assert machine._captures(tmp_path / "no", 1, root).fix == f"install -d -o root -m 0750 {tmp_path}/no"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert machine._listen(f"127.0.0.1:{port}").state == BAD
    assert machine._listen(f"127.0.0.1:{port}").state == GOOD


def test_accounts(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000003000\n")
    assert accounts.effective_capabilities(status) == 1 << CAP_NET_RAW | 1 << CAP_NET_ADMIN
    status.write_text("Name:\tx\n")
    assert accounts.effective_capabilities(status) == 0
    mine = accounts.this_account()
    assert accounts.named_account(mine.name) == mine
    with pytest.raises(ConfigError, match="there is no user no-such-user"):
        accounts.named_account("no-such-user")
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    state = place.stat()
    assert Account("x", state.st_uid or 1, 0, None).can_write(place) is (state.st_uid != 0)
    place.chmod(0o777)
    assert NOBODY.can_write(place)


# Checkpointers


def look_at(name: str, options: Any, mode: str = PROTECT, *, running: bool = False) -> list[Finding]:
    table = CheckpointerTable(backend=name, options=options)
    return list(backend.look_at_backend(table, mode, running=running))


def test_programs(tmp_path: Path) -> None:
    program = tmp_path / "checkpoint"
    options = CommandOptions(checkpoint=(str(program), "-v"))
    assert look_at("command", options)[0].text == f"there is no program {program}"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    assert look_at("command", options)[0].fix == f"chmod +x {program}"
    program.chmod(0o755)
    assert [found.state for found in look_at("command", options)] == [GOOD]


def test_a_backend_that_copies_nothing() -> None:
    assert [found.state for found in look_at("null", NullOptions())] == [DOUBTFUL]
    assert [found.state for found in look_at("null", NullOptions(), OBSERVE)] == [GOOD]


class FakeQemu:
    """A monitor that gives a version, a machine type and capabilities."""

    def __init__(self, path: Path, version: tuple[int, int, int], kind: str, *, colo: bool = True) -> None:
        self.address = f"unix:{path}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        names = ("major", "minor", "micro")
        qemu = dict(zip(names, version, strict=True))
        self._greeting = {"QMP": {"version": {"qemu": qemu, "package": ""}, "capabilities": []}}
        self._answers: dict[str, Any] = {
            "qmp_capabilities": {},
            "query-migrate-capabilities": [{"capability": "x-colo" if colo else "xbzrle", "state": False}],
            "qom-get": kind,
        }
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rw") as lines:
            print(json.dumps(self._greeting), file=lines, flush=True)
            for line in lines:
                command = json.loads(line)
                answer = {"return": self._answers[command["execute"]], "id": command.get("id")}
                print(json.dumps(answer), file=lines, flush=True)

    def close(self) -> None:
        self._thread.join(5)
        self._socket.close()


Pair = Callable[..., list[Finding]]


@pytest.fixture
def qemus(tmp_path: Path) -> Iterator[Pair]:
    started: list[FakeQemu] = []

    def look(primary: dict[str, Any], secondary: dict[str, Any]) -> list[Finding]:
        for name, values in (("p", primary), ("s", secondary)):
            values = {"version": (7, 2, 22), "kind": "pc-q35-7.2-machine", **values}
            started.append(FakeQemu(tmp_path / name, **values))
        options = QemuOptions(primary=started[0].address, secondary=started[1].address)
        return look_at("qemu", options)

    yield look
    for qemu in started:
        qemu.close()


def test_a_healthy_pair_of_machines(qemus: Pair) -> None:
    found = qemus({}, {})
    assert [(each.state, each.text) for each in found] == [
        (GOOD, "version 7.2.22, machine pc-q35-7.2"),
        (GOOD, "version 7.2.22, machine pc-q35-7.2"),
        (GOOD, "the same version and machine type on both sides"),
    ]


def test_machines_that_cannot_be_a_pair(qemus: Pair) -> None:
    found = qemus({"version": (10, 0, 2)}, {"colo": False, "kind": "pc-i440fx-7.2-machine"})
    assert [each.state for each in found] == [BAD, BAD, BAD]
    assert "COLO does not work in it" in found[0].text
    assert "built without COLO" in found[1].text
    assert found[2].fix == "start both with the same QEMU and -machine pc-q35-7.2"


def test_a_version_that_is_not_tested(qemus: Pair) -> None:
    found = qemus({"version": (8, 0, 0)}, {"version": (8, 0, 0)})
    assert [each.state for each in found] == [DOUBTFUL, DOUBTFUL, GOOD]


def test_monitors_that_nobody_answers_on(tmp_path: Path) -> None:
    options = QemuOptions(primary=f"unix:{tmp_path}/p", secondary=f"unix:{tmp_path}/s")
    found = look_at("qemu", options)
    assert [each.state for each in found] == [BAD, BAD]
    assert found[0].fix.startswith(f"start QEMU with -qmp unix:{tmp_path}/p,server=on,wait=off")
    assert [each.state for each in look_at("qemu", options, running=True)] == [GOOD]


# The command


def test_the_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == cli.OK
    text = capsys.readouterr().out
    assert "ok    kernel           Linux " in text
    assert " looked at: 0 bad, " in text.splitlines()[-1]


def test_a_configuration_with_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[proxi]\n")
    assert cli.main(["doctor", "-c", str(path), "--json"]) == cli.NEGATIVE
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["state"], first["fix"]) == (BAD, f"correct {path}, then: colo-compare check -c {path}")


def test_a_user_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--user", "no-such-user"]) == cli.USAGE


async def test_beside_a_proxy_that_runs(tmp_path: Path) -> None:

    rig = memory_rig(tmp_path)
    async with rig.running():
        found = await trio.to_thread.run_sync(lambda: list(doctor.look(rig.path, accounts.this_account())))
    texts = [each.text for each in found]
    assert f"a proxy answers on {rig.config.control.socket}" in texts
    assert not [each for each in found if each.state == BAD]
