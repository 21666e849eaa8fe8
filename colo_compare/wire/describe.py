"""Flow keys in words."""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from colo_compare.wire.checksum import ICMP_PROTOCOL, ICMPV6_PROTOCOL, UDP_PROTOCOL
from colo_compare.wire.frame import FRAGMENT_MARK

_PROTOCOLS: Final = {ICMP_PROTOCOL: "icmp", UDP_PROTOCOL: "udp", ICMPV6_PROTOCOL: "icmpv6"}
_IPV6_KEY_LEN: Final = 36  # of two addresses and ports; no IPv4 key gets as long


def describe_flow(key: bytes) -> str:
    """Give a flow key in words, the guest's end first: ``tcp 10.0.0.2:80 - 10.0.0.1:43210 vlan 5``.

    An opaque frame's empty key gives ``(no flow)``.
    """
    if key == b"":
        return "(no flow)"
    width = 16 if len(key) >= _IPV6_KEY_LEN else 4
    ports = 2 * width
    vlans = key[ports + 4 :]
    what = "tcp"
    if len(vlans) & 1:
        what = _protocol(vlans[-1])
        vlans = vlans[:-1]
    elif len(vlans) >= 2 and vlans[-2] == FRAGMENT_MARK:
        what = "fragment of " + ("tcp" if vlans[-1] == 6 else _protocol(vlans[-1]))
        vlans = vlans[:-2]
    near = int.from_bytes(key[ports : ports + 2], "big")
    far = int.from_bytes(key[ports + 2 : ports + 4], "big")
    words = [what]
    if what in ("icmp", "icmpv6") and near:
        words += [_address(key[:width]), "-", _address(key[width:ports]), f"id {near}"]
    elif what in ("tcp", "udp"):
        words += [_end(key[:width], near), "-", _end(key[width:ports], far)]
    else:
        words += [_address(key[:width]), "-", _address(key[width:ports])]
    for at in range(0, len(vlans), 2):
        words += ["vlan", str(int.from_bytes(vlans[at : at + 2], "big"))]
    return " ".join(words)


def _protocol(number: int) -> str:
    return _PROTOCOLS.get(number, f"ip protocol {number}")


def _address(raw: bytes) -> str:
    return str(IPv4Address(raw)) if len(raw) == 4 else str(IPv6Address(raw))


def _end(raw: bytes, port: int) -> str:
    address = _address(raw)
    return f"{address}:{port}" if len(raw) == 4 else f"[{address}]:{port}"
