"""Put a new guest into a memory."""

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address

from colo_compare.guest.header import MAGIC, NEVER, VERSION, Header
from colo_compare.guest.layout import Geometry
from colo_compare.guest.records import Memory

MAPPED = bytes(10) + b"\xff\xff"
"""In front of an IPv4 address in the guest's memory (RFC 4291, 2.5.5.2)."""

FIRST_PORT = 49152  # of the dynamic ports (RFC 6335, section 6)


@dataclass(frozen=True)
class Identity:
    """Who a guest is. Two guests that shall be one to the world have the same identity."""

    mac: str = "02:77:00:00:00:02"
    address4: str = "10.77.0.2/24"
    address6: str = "fd77::2/64"
    gateway4: str = ""  # none: only its own network is reached
    gateway6: str = ""
    mtu: int = 1500
    secret: str = "guest"  # behind initial sequence numbers and timestamps


def mapped(address: str) -> bytes:
    """Give the 16 bytes that stand for an address in the guest's memory; none ("") is all zeros.

    Raises ValueError.
    """
    if not address:
        return bytes(16)
    packed = ip_address(address).packed
    return MAPPED + packed if len(packed) == 4 else packed


def _link_local(mac: bytes) -> bytes:
    """Give the link-local address of a MAC address (RFC 4291, appendix A)."""
    identifier = bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]))
    return b"\xfe\x80" + bytes(6) + identifier


def boot(raw: memoryview, geometry: Geometry, identity: Identity) -> None:
    """Boot a guest in a memory of at least `geometry.size` bytes, all zero.

    Raises ValueError for a memory that is too small and for an identity that is none.
    """
    if raw.nbytes < geometry.size:
        raise ValueError(f"the guest needs {geometry.size} bytes of memory, and gets {raw.nbytes}")
    if not 1280 <= identity.mtu <= 2000:
        raise ValueError(f"mtu {identity.mtu}: it must be 1,280 (RFC 8200, section 5) to 2,000")
    mac = bytes.fromhex(identity.mac.replace(":", ""))
    if len(mac) != 6 or mac[0] & 1:
        raise ValueError(f"{identity.mac} is no MAC address of a host")
    home4 = IPv4Interface(identity.address4)
    home6 = IPv6Interface(identity.address6)
    header = Header(Memory(raw), 0)
    header.version = VERSION
    header.connections = geometry.connections
    header.send_bytes = geometry.send_bytes
    header.receive_bytes = geometry.receive_bytes
    header.entries = geometry.entries
    header.value_bytes = geometry.value_bytes
    header.mtu = identity.mtu
    header.mac = mac
    header.address4 = MAPPED + home4.ip.packed
    header.prefix4 = 96 + home4.network.prefixlen
    header.gateway4 = mapped(identity.gateway4)
    header.address6 = home6.ip.packed
    header.prefix6 = home6.network.prefixlen
    header.gateway6 = mapped(identity.gateway6)
    header.link_local = _link_local(mac)
    header.secret = hashlib.sha256(identity.secret.encode()).digest()
    header.next_due = NEVER
    header.next_port = FIRST_PORT
    header.challenge_second = -1  # none has begun: the first one fills up what may be sent in it
    header.magic = MAGIC
