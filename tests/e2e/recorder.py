"""Captures of what passes a guest's interface, as tcpdump in the guest would make them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colo_compare.demo.namespace import Namespace
from colo_compare.ports.pcap import CaptureWriter

ETH_P_ALL = 3  # linux/if_ether.h
BUFFER = 32 << 20  # bytes; twice the most that an unprivileged user is allowed is enough, but this is surer
QUIET = 0.2  # seconds without a frame after which all have been written


@contextmanager
def recorded(namespace: Namespace, path: Path) -> Iterator[None]:
    """Write every frame that passes `eth0` of a namespace while the body runs, and what follows at once."""
    with namespace.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        tap.bind(("eth0", ETH_P_ALL))
        tap.settimeout(QUIET)
        over = threading.Event()

        def write() -> None:
            with CaptureWriter(path, ["eth0"]) as writer:
                while True:
                    try:
                        frame = tap.recv(1 << 18)
                    except TimeoutError:
                        if over.is_set():
                            return
                    else:
                        writer.write("eth0", time.time_ns(), frame)

        writing = threading.Thread(target=write)
        writing.start()
        try:
            yield
        finally:
            over.set()
            writing.join()
