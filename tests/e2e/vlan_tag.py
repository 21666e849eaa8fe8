"""Put a host of the lab on a VLAN: its interface tags what leaves and untags what comes.

Two BPF programs of five instructions at tc's clsact hook. A VLAN interface would do the same where the kernel
has CONFIG_VLAN_8021Q, which small kernels have not; bpf(2) is everywhere.
"""

import ctypes
import os
import platform
import struct

from pyroute2 import IPRoute

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SCHED_CLS = 3
SKB_VLAN_PUSH = 18  # include/uapi/linux/bpf.h: bpf_skb_vlan_push(skb, protocol, tag)
SKB_VLAN_POP = 19
CLSACT_INGRESS = 0xFFFFFFF2  # include/uapi/linux/pkt_sched.h: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
CLSACT_EGRESS = 0xFFFFFFF3


def tag(interface: str, vlan: int, protocol: int) -> None:
    """Tag an interface of the calling thread's namespace (protocol 0x8100 or 0x88A8)."""
    network_order = int.from_bytes(protocol.to_bytes(2, "big"), "little")
    push = move(2, network_order) + move(3, vlan) + call(SKB_VLAN_PUSH) + accept()
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=interface)
        ip.tc("add", "clsact", index)
        for hook, code in ((CLSACT_EGRESS, push), (CLSACT_INGRESS, call(SKB_VLAN_POP) + accept())):
            program = load(code)
            ip.tc(
                "add-filter",
                "bpf",
                index,
                fd=program,
                name="vlan",
                parent=hook,
                classid=1,
                direct_action=True,
            )
            os.close(program)


def move(register: int, value: int) -> bytes:
    return struct.pack("<BBhi", 0xB7, register, 0, value)


def call(function: int) -> bytes:
    return struct.pack("<BBhi", 0x85, 0, 0, function)


def accept() -> bytes:
    return move(0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # return TC_ACT_OK


def load(code: bytes) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(4096)
    attributes = struct.pack(
        "<IIQQIIQI",
        BPF_PROG_TYPE_SCHED_CLS,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
        0,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = int(libc.syscall(SYS_BPF[platform.machine()], BPF_PROG_LOAD, attributes, len(attributes)))
    if program < 0:
        raise OSError(ctypes.get_errno(), log.value.decode())
    return program
