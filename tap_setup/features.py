"""Offloads by ioctl: include/uapi/linux/ethtool.h, net/ethtool/ioctl.c.

By the features interface (ETHTOOL_GFEATURES), which tells apart what the driver can do, what was requested
and what is active; the older calls (ETHTOOL_GTSO, ...) know only the last, and switch on more than was asked.
"""

import ctypes
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

from colo_compare.errors import SetupError
from tap_setup.refusal import attempting

SIOCETHTOOL: Final = 0x8946
ETHTOOL_GSTRINGS: Final = 0x1B
ETHTOOL_GSSET_INFO: Final = 0x37
ETHTOOL_GFEATURES: Final = 0x3A
ETHTOOL_SFEATURES: Final = 0x3B
ETH_SS_FEATURES: Final = 4
ETH_GSTRING_LEN: Final = 32

# Which kernel features (net/ethtool/common.c) each of our words stands for. Not among them: TSO with
# mangled IP ids, which most drivers can and leave off, and checksums of FCoE and SCTP.
GROUPS: Final = {
    "rx": ("rx-checksum",),
    "tx": ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"),
    "tso": ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation"),
    "uso": ("tx-udp-segmentation",),
    "gso": ("tx-generic-segmentation",),
    "gro": ("rx-gro",),
    "lro": ("rx-lro",),
}


_WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class _Features:
    """A device's features: bit numbers by name, and bit sets as integers."""

    bits: dict[str, int]
    words: int  # of 32 bits, in the kernel's messages
    changeable: int
    requested: int
    active: int

    def group(self, names: tuple[str, ...]) -> dict[str, int]:
        """Give the bits of a group that can be changed, if there are none those that are always on."""
        bits = {name: 1 << self.bits[name] for name in names if name in self.bits}
        return {name: bit for name, bit in bits.items() if bit & self.changeable} or {
            name: bit for name, bit in bits.items() if bit & self.active
        }


def read_offloads(control: socket.socket, link: str) -> dict[str, str]:
    """Give each group as ``on``, ``off``, or the comma-joined features of it that alone are on.

    On is what was requested, where that can be: a feature may rest while another that it needs is off.
    """
    features = _read(control, link)
    offloads = {}
    for group, names in GROUPS.items():
        bits = features.group(names)
        state = (features.requested & features.changeable) | (features.active & ~features.changeable)
        on = [name for name, bit in bits.items() if bit & state]
        offloads[group] = "off" if not on else "on" if len(on) == len(bits) else ",".join(on)
    return offloads


def set_offload(control: socket.socket, link: str, group: str, value: str) -> None:
    """Set a group to a value of `read_offloads`. Raises SetupError if the driver cannot change it."""
    features = _read(control, link)
    bits = features.group(GROUPS[group])
    mask = sum(bits.values())
    if not mask & features.changeable:
        raise SetupError(
            f"cannot set {group} of {link} to {value}: its driver cannot change it; leave it out"
        )
    wanted = mask if value == "on" else sum(bit for name, bit in bits.items() if name in value.split(","))
    pairs = []
    for word in range(features.words):
        pairs += [mask >> 32 * word & _WORD, wanted >> 32 * word & _WORD]
    request = struct.pack(f"=II{len(pairs)}I", ETHTOOL_SFEATURES, features.words, *pairs)
    with attempting(f"set {group} of {link} to {value}"):
        _ethtool(control, link, bytearray(request))


def _read(control: socket.socket, link: str) -> _Features:
    with attempting(f"read the offloads of {link}"):
        names = _names(control, link)
        words = (len(names) + 31) // 32
        answer = bytearray(struct.pack("=II", ETHTOOL_GFEATURES, words) + bytes(16 * words))
        _ethtool(control, link, answer)
    available = requested = active = never_changed = 0
    for word, fields in enumerate(struct.iter_unpack("=IIII", answer[8:])):
        available |= fields[0] << 32 * word
        requested |= fields[1] << 32 * word
        active |= fields[2] << 32 * word
        never_changed |= fields[3] << 32 * word
    return _Features(
        bits={name: bit for bit, name in enumerate(names) if name},
        words=words,
        changeable=available & ~never_changed,
        requested=requested,
        active=active,
    )


def _names(control: socket.socket, link: str) -> list[str]:
    """Give the names of this kernel's features; the place of each is its bit."""
    answer = bytearray(struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    _ethtool(control, link, answer)
    (count,) = struct.unpack_from("=I", answer, 16)
    answer = bytearray(struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count))
    answer += bytes(count * ETH_GSTRING_LEN)
    _ethtool(control, link, answer)
    strings = answer[12:]
    return [
        strings[start : start + ETH_GSTRING_LEN].split(b"\0", 1)[0].decode()
        for start in range(0, count * ETH_GSTRING_LEN, ETH_GSTRING_LEN)
    ]


def _ethtool(control: socket.socket, link: str, command: bytearray) -> None:
    """Run one ethtool command; the answer is left in `command`. Raises OSError."""
    buffer = (ctypes.c_char * len(command)).from_buffer(command)
    # struct ifreq: the name and a pointer to the command, in 40 bytes on 64-bit machines.
    request = struct.pack("16sP", link.encode(), ctypes.addressof(buffer)).ljust(40, b"\0")
    fcntl.ioctl(control, SIOCETHTOOL, request)
