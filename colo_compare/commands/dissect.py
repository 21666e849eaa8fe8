"""The protocol fields in which two frames differ, named by scapy.

scapy is an optional extra (``colo-compare[explain]``), slow to import and of another licence: it is imported
here, in the command, when somebody asks, and never in the daemon.
"""

import logging
from typing import Any, Final, NamedTuple

_LONGEST: Final = 48  # characters of a value
_NOT_COMPARED: Final = "not compared"
_TRANSLATED: Final = "translated"
# What differs between two guests without being a divergence (rules 1 to 3).
_HARMLESS: Final = {
    "IP.id": _NOT_COMPARED,
    "IP.ttl": _NOT_COMPARED,
    "IP.tos": _NOT_COMPARED,
    "IP.len": _NOT_COMPARED,
    "IP.chksum": _NOT_COMPARED,
    "IPv6.tc": _NOT_COMPARED,
    "IPv6.fl": _NOT_COMPARED,
    "IPv6.hlim": _NOT_COMPARED,
    "IPv6.plen": _NOT_COMPARED,
    "UDP.chksum": _NOT_COMPARED,
    "TCP.chksum": _NOT_COMPARED,
    "TCP.flags": "compared where it ends or begins something",
    "TCP.seq": _TRANSLATED,
    "TCP.Timestamp": _TRANSLATED,
    "TCP.ack": "held until the secondary's is as far",
    "TCP.window": "the client sees the smaller one",
}


class Difference(NamedTuple):
    """One field that is not the same in both frames."""

    field: str  # LAYER.FIELD
    primary: str
    secondary: str
    note: str  # why it does not matter, "" where it may


def available() -> bool:
    """Whether scapy is installed."""
    try:
        import scapy  # noqa: F401 - only whether it is there
    except ImportError:
        return False
    return True


def differing_fields(ours: bytes, theirs: bytes) -> list[Difference]:
    """Give the fields that differ between two Ethernet frames, or the beginnings of them, in their order.

    A field that only one of them has is left empty for the other one.
    """
    one, two = _fields(ours), _fields(theirs)
    return [
        Difference(name, one.get(name, ""), two.get(name, ""), _HARMLESS.get(name, ""))
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]


def _fields(frame: bytes) -> dict[str, str]:
    if not frame:
        return {}
    try:
        packet = _dissect(frame)
    except Exception:  # of a dissector that does not expect a frame to be cut short
        return {}
    fields: dict[str, str] = {}
    for layer in packet.layers():
        part = packet[layer]
        for described in part.fields_desc:
            value = part.getfieldval(described.name)
            if layer.__name__ in ("Raw", "Padding") or value is None:
                continue  # the dump shows it
            if described.name == "options" and layer.__name__ == "TCP":
                fields |= {f"TCP.{name}": _text(option) for name, option in value if option is not None}
            else:
                fields[f"{layer.__name__}.{described.name}"] = _text(value)
    return fields


def _dissect(frame: bytes) -> Any:
    logging.getLogger("scapy").setLevel(logging.ERROR)  # it talks about routes that it does not find
    from scapy.layers import dhcp, dns, http, inet6, ntp, snmp, tftp  # noqa: F401 - they register themselves
    from scapy.layers.l2 import Ether

    return Ether(frame)


def _text(value: object) -> str:
    text = value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
