import math
from pathlib import Path

import pytest

from colo_compare.ports.faults import Faults
from colo_compare.ports.url import (
    DgramTarget,
    MemoryTarget,
    PacketTarget,
    PcapTarget,
    StreamTarget,
    TapTarget,
    Target,
    parse_port_url,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("packet:eth0", PacketTarget("eth0", "auto")),
        ("packet:eth0?", PacketTarget("eth0", "auto")),
        ("packet:eth0?vnet_hdr=no", PacketTarget("eth0", "no")),
        ("packet:br%3F0", PacketTarget("br?0", "auto")),
        ("tap:tap0", TapTarget("tap0", "auto", "auto")),
        ("tap:tap0?vnet_hdr=yes&multi_queue=no", TapTarget("tap0", "yes", "no")),
        ("stream+unix:///run/x", StreamTarget("/run/x", False, False, 1.0)),
        (
            "stream+unix:///run/a%20b?listen=yes&vnet_hdr=yes&reconnect=0",
            StreamTarget("/run/a b", True, True, 0.0),
        ),
        ("stream+unix:///run/x?reconnect=0.5", StreamTarget("/run/x", False, False, 0.5)),
        ("stream+unix:///run/x?reconnect=250ms", StreamTarget("/run/x", False, False, 0.25)),
        ("stream+tcp://host.example:9000", StreamTarget(("host.example", 9000), False, False, 1.0)),
        ("stream+tcp://[fe80::1%25eth0]:1", StreamTarget(("fe80::1%eth0", 1), False, False, 1.0)),
        ("dgram+unix:///run/x?peer=/run/y", DgramTarget("/run/x", "/run/y")),
        ("pcap:a/b.pcapng", PcapTarget(Path("a/b.pcapng"), False)),
        ("pcap:/b.pcap?mode=write", PcapTarget(Path("/b.pcap"), True)),
        ("memory:x", MemoryTarget("x")),
    ],
)
def test_every_form_is_understood(text: str, target: Target) -> None:
    parsed = parse_port_url(text)
    assert parsed.target == target
    assert parsed.text == text
    assert (parsed.trace, parsed.fault_receive, parsed.fault_send) == (None, None, None)


def test_any_port_can_be_traced_and_have_faults() -> None:
    parsed = parse_port_url("memory:x?trace=/tmp/a%26b.pcapng&fault=loss:0.5,seed:7")
    assert parsed.trace == Path("/tmp/a&b.pcapng")
    assert parsed.fault_receive == parsed.fault_send == Faults(loss=0.5, seed=7)


def test_a_direction_has_its_own_faults() -> None:
    parsed = parse_port_url("memory:x?fault_send=delay:20ms&fault=loss:1")
    assert parsed.fault_receive == Faults(loss=1.0)
    assert parsed.fault_send == Faults(delay=0.02, rate=math.inf)
    assert parse_port_url("memory:x?fault_receive=seed:1").fault_send is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "",
            "must begin with packet:, tap:, stream+unix:, stream+tcp:, dgram+unix:, pcap: or memory:",
        ),
        ("eth0", "is no port URL"),
        ("packet", "is no port URL"),
        ("qemu:x", "is no port URL"),
        ("packet:", "the name of the interface is missing"),
        ("packet:abcdefghijklmnop", "at most 15 bytes"),
        ("packet:a/b", "cannot be the name of an interface"),
        ("packet:..", "cannot be the name of an interface"),
        (
            "packet:eth0?mtu=3",
            "packet has no option mtu; it has fault, fault_receive, fault_send, trace, vnet_hdr",
        ),
        ("packet:eth0?multi_queue=yes", "packet has no option multi_queue"),
        ("packet:eth0?vnet_hdr=maybe", 'vnet_hdr: "maybe" is none of auto, yes, no'),
        ("packet:eth0?vnet_hdr", '"vnet_hdr" is no option: write name=value'),
        ("packet:eth0?vnet_hdr=no&vnet_hdr=no", "vnet_hdr is given twice"),
        ("tap:tap0?multi_queue=4", 'multi_queue: "4" is none of auto, yes, no'),
        ("stream+unix:/run/x", "with three slashes"),
        ("stream+unix://run/x", "with three slashes"),
        ("stream+unix:///" + "x" * 107, "at most 107 bytes"),
        ("stream+unix:///x?reconnect=soon", 'reconnect: "soon" is no duration'),
        ("stream+unix:///x?listen=1", 'listen: "1" is none of no, yes'),
        ("stream+tcp://host", "write stream+tcp://HOST:PORT"),
        ("stream+tcp://::1:80", "write stream+tcp://HOST:PORT, an IPv6 address in brackets"),
        ("stream+tcp://host:0", "0 is no TCP port"),
        ("stream+tcp://host:65536", "65536 is no TCP port"),
        ("dgram+unix:///run/x", "dgram+unix needs peer=..."),
        ("dgram+unix:///run/x?peer=y", 'peer: "y" must be an absolute path'),
        ("dgram+unix:///run/x?peer=/run/x", "must be another path"),
        ("pcap:", "the name of a file is missing"),
        ("pcap:a%00b", "no zero byte"),
        ("pcap:x?mode=append", 'mode: "append" is none of read, write'),
        ("memory:", "a name is missing"),
        ("memory:x?trace=", "trace: the name of a file is missing"),
        (
            "memory:x?fault=lose:1",
            'fault: "lose:1" is none of loss:..., duplicate:..., corrupt:..., reorder:...',
        ),
        ("memory:x?fault=loss:2", 'fault: "2" is no probability'),
        ("memory:x?fault=loss:x", 'fault: "x" is no probability'),
        ("memory:x?fault=loss", 'fault: "loss" is none of'),
        ("memory:x?fault=rate:0", 'fault: "0" is no rate'),
        ("memory:x?fault=rate:inf", 'fault: "inf" is no rate'),
        ("memory:x?fault=rate:fast", 'fault: "fast" is no rate'),
        ("memory:x?fault=seed:-1", 'fault: "-1" is no seed'),
        ("memory:x?fault_send=delay:20", 'fault_send: "20" is no duration'),
        ("memory:x?fault=loss:0,loss:0", "fault: loss is given twice"),
    ],
)
def test_mistakes_are_named(text: str, mistake: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_port_url(text)
    assert mistake in str(caught.value)
