"""Datagrams and pings of the lab's client. Whatever is not answered in time raises TimeoutError."""

import socket
import struct
from collections.abc import Iterable

from colo_compare.demo.lab import Network
from colo_compare.demo.namespace import sysctl

PATIENCE = 5.0  # seconds


def ask(lab: Network, host: str, port: int, questions: Iterable[bytes]) -> list[bytes]:
    """Send datagrams from one UDP socket, each when the one before it was answered; give the answers."""
    with lab.client.call(socket.socket, family(host), socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE)
        asker.connect((host, port))
        answers = []
        for question in questions:
            asker.send(question)
            answers.append(asker.recv(65535))
        return answers


def ping(lab: Network, host: str, payloads: Iterable[bytes]) -> list[bytes]:
    """Ping with these payloads, one after the other; give those that came back.

    A kernel "ping socket" (ICMP over SOCK_DGRAM) fills in identifier and checksum.
    """
    v6 = ":" in host
    echo = 128 if v6 else 8
    lab.client.call(sysctl, "net.ipv4.ping_group_range", "0 0")
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    with lab.client.call(socket.socket, family(host), socket.SOCK_DGRAM, protocol) as pinger:
        pinger.settimeout(PATIENCE)
        pinger.connect((host, 0))
        answers = []
        for number, payload in enumerate(payloads):
            pinger.send(struct.pack("!BBHHH", echo, 0, 0, 0, number) + payload)
            answers.append(pinger.recv(65535)[8:])
        return answers


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
