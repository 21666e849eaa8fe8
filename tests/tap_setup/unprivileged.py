"""A process without any privilege that attaches to a tap and sends each frame back.

``python -m tests.tap_setup.unprivileged port|raw IFNAME``. It starts as root (the interpreter may be readable
by root only), gives everything up, says on one line of JSON what it is, and opens the tun device only then.
It ends when its standard input does.
"""

import ctypes
import fcntl
import json
import os
import select
import struct
import sys
from pathlib import Path

import trio

from colo_compare.ports import open_port
from colo_compare.wire.frame import parse_frame
from tap_setup.tun import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF

UID = 65532

PR_CAPBSET_DROP = 24  # include/uapi/linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38
TUNSETOFFLOAD = 0x400454D0  # include/uapi/linux/if_tun.h
TUNSETVNETHDRSZ = 0x400454D8
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN = 0x01, 0x02, 0x04, 0x08

HEADER_LEN = 12


def give_everything_up() -> None:
    """Become UID, without groups, without a capability and without a way to get one."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot drop a capability")
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)  # from 0: clears the permitted, effective and ambient sets
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def introduce() -> None:
    """Say who this process is, in the kernel's words."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    keys = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    print(json.dumps({key: status[key].split() for key in keys}), flush=True)


def turned(frame: bytes) -> bytes:
    """Give a frame back to its sender."""
    header, destination, source, rest = frame[:12], frame[12:18], frame[18:24], frame[24:]
    return header + source + destination + rest


async def echo_by_port(name: str) -> None:
    async with open_port(f"tap:{name}") as port, trio.open_nursery() as nursery:
        print(json.dumps({"header_len": port.header_len}), flush=True)

        async def until_told() -> None:
            await trio.lowlevel.wait_readable(0)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_told)
        while True:
            frames = [
                parse_frame(turned(data), HEADER_LEN, inbound=False) for data in await port.receive_batch()
            ]
            assert port.send_batch(frames) == len(frames)


def echo_by_queues(name: str) -> None:
    """The same with two queues and bare system calls."""
    queues = [os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK) for _ in range(2)]
    for queue in queues:
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
        fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(queue, TUNSETVNETHDRSZ, struct.pack("i", HEADER_LEN))
        fcntl.ioctl(queue, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
    print(json.dumps({"header_len": HEADER_LEN}), flush=True)
    while True:
        readable, _, _ = select.select([0, *queues], [], [])
        if 0 in readable:
            return
        for queue in readable:
            os.write(queue, turned(os.read(queue, 1 << 17)))


def main() -> None:
    how, name = sys.argv[1:]
    give_everything_up()
    introduce()
    if how == "port":
        trio.run(echo_by_port, name)
    else:
        echo_by_queues(name)


if __name__ == "__main__":
    main()
