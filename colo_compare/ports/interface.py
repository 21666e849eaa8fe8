"""What the kernel says of a network interface, asked through a socket: that one's namespace counts."""

import errno
import fcntl
import socket
import struct
from typing import Final

SIOCGIFNAME: Final = 0x8910  # linux/sockios.h
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1  # linux/if.h

_REQUEST: Final = struct.Struct("16sh22x")  # struct ifreq, as flags
_INDEX_REQUEST: Final = struct.Struct("16si20x")  # struct ifreq, as an index


def interface_flags(sock: socket.socket, name: str) -> int:
    """Give the flags of an interface. Raises OSError (ENODEV) if there is none of this name."""
    reply = fcntl.ioctl(sock, SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
    flags: int = _REQUEST.unpack(reply)[1]
    return flags


def set_up(sock: socket.socket, name: str) -> None:
    """Set an interface up. Raises OSError (EPERM without CAP_NET_ADMIN)."""
    flags = interface_flags(sock, name) | IFF_UP
    fcntl.ioctl(sock, SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags))


def why_down(sock: socket.socket, index: int) -> str:
    """Say what happened to the interface with this index: removed, set down, or nothing ("")."""
    try:
        reply = fcntl.ioctl(sock, SIOCGIFNAME, _INDEX_REQUEST.pack(b"", index))
        name = reply[:16].partition(b"\0")[0].decode()
        flags = interface_flags(sock, name)
    except OSError as error:
        if error.errno in {errno.ENODEV, errno.ENXIO}:
            return "the interface was removed, or moved to another namespace"
        return f"the interface cannot be asked for its state: {error.strerror}"
    if not flags & IFF_UP:
        return f"interface {name} was set down"
    return ""


def known_interfaces() -> str:
    """List the interfaces of this namespace, for an error message."""
    names = sorted(name for _, name in socket.if_nameindex())
    return f"there are {', '.join(names)}" if names else "there are none"
