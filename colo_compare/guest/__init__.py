"""The embedded guest: a small machine whose whole state is one flat memory. See docs/embedded-guest.md.

::

    port ── shell ── machine ──┬── neighbours (ARP, neighbour discovery)
              │      (no I/O)  ├── icmp, datagrams
           control             └── tcp_* ── applications (HTTP, echo, caller)
                                     │
                               memory: header, tables, buffers

Frames and times go in, frames come out. Between two calls of a `Machine` nothing that matters lives anywhere
but in its memory: whoever copies the memory copies the guest.
"""

from colo_compare.guest.boot import Identity, boot
from colo_compare.guest.layout import Geometry
from colo_compare.guest.machine import Machine
from colo_compare.guest.noise import Noise

__all__ = ["Geometry", "Identity", "Machine", "Noise", "boot"]
