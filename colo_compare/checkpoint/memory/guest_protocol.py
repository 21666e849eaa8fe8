"""What a guest process and its controller say to each other on a unix stream socket.

The guest listens, and serves one controller at a time. Every message begins with 16 bytes, big-endian:
"COLG", version (1), kind, two zeros, length of the body (8 bytes).

========  ==========  ======================================================================================
kind      from        body
========  ==========  ======================================================================================
ATTACHED  guest       first of all: bytes of memory (8), where it is mapped in the guest (8), page size (4);
                      its memfd comes with it, and its opened /proc/self/pagemap if it protects its pages
PAUSE     controller
PAUSED    guest       device state: the guest stands still now
CACHE     controller  with it comes the memfd of the cache, as large as the memory
LOAD      controller  number of runs to copy (4), of runs to clear (4), the runs (first page, pages: 4 each),
                      device state: copy those pages from the cache, make these zero, take this device state,
                      and stay still
RESUME    controller
PING      controller  does it live? whether it runs or stands still
DONE      guest       the answer to CACHE, LOAD, RESUME and PING
ERROR     guest       the answer to what could not be done (text); to LOAD: the guest is spoilt and ends
========  ==========  ======================================================================================

A controller that goes away lets a guest that stands still run on.
"""

import struct
from typing import Final

from colo_compare.checkpoint.memory.messages import TABLE_ENTRY, Buffer
from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.errors import CheckpointerError

VERSION: Final = 1
_MAGIC: Final = b"COLG"
_HEADER: Final = struct.Struct(">4sBBxxQ")
HEADER_LENGTH: Final = _HEADER.size
LONGEST_BODY: Final = 2 << 30

ATTACHED: Final = 1
PAUSE: Final = 2
PAUSED: Final = 3
CACHE: Final = 4
LOAD: Final = 5
RESUME: Final = 6
DONE: Final = 7
ERROR: Final = 8
PING: Final = 9

_ATTACHED: Final = struct.Struct(">QQI")
_COUNTS: Final = struct.Struct(">II")


def encode(kind: int, body: Buffer = b"") -> bytes:
    """Give a message as bytes."""
    return _HEADER.pack(_MAGIC, VERSION, kind, len(body)) + bytes(body)


def parse_header(header: Buffer) -> tuple[int, int]:
    """Give the kind of a message and the length of its body. Raises CheckpointerError."""
    magic, version, kind, length = _HEADER.unpack(header)
    if magic != _MAGIC or length > LONGEST_BODY:
        raise CheckpointerError(f"no guest's control socket: it says {bytes(header)!r}; look at its path")
    if version != VERSION:
        raise CheckpointerError(
            f"the guest's control protocol has version {version}, not {VERSION}: install the same release"
        )
    return kind, length


def pack_attached(size: int, address: int, page_size: int) -> bytes:
    """Give the body of ATTACHED."""
    return _ATTACHED.pack(size, address, page_size)


def parse_attached(body: Buffer) -> tuple[int, int, int]:
    """Read the body of ATTACHED: bytes of memory, address in the guest, page size.

    Raises CheckpointerError.
    """
    if len(body) != _ATTACHED.size:
        raise CheckpointerError(f"a guest introduces itself with {len(body)} bytes, not {_ATTACHED.size}")
    size, address, page_size = _ATTACHED.unpack(body)
    return size, address, page_size


def pack_load(runs: list[Run], zeros: list[Run], device_state: bytes) -> bytes:
    """Give the body of LOAD."""
    table = b"".join([TABLE_ENTRY.pack(first, count) for first, count in runs + zeros])
    return b"".join((_COUNTS.pack(len(runs), len(zeros)), table, device_state))


def parse_load(body: Buffer) -> tuple[list[Run], list[Run], bytes]:
    """Read the body of LOAD: pages to copy, pages to clear, the device state. Raises CheckpointerError."""
    if len(body) >= _COUNTS.size:
        copied, cleared = _COUNTS.unpack_from(body)
        start = _COUNTS.size + (copied + cleared) * TABLE_ENTRY.size
        if len(body) >= start:
            runs: list[Run] = list(TABLE_ENTRY.iter_unpack(memoryview(body)[_COUNTS.size : start]))
            return runs[:copied], runs[copied:], bytes(memoryview(body)[start:])
    raise CheckpointerError("a guest was told to load, but the message ends before its table of pages")
