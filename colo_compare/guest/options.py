"""The command line of ``python -m colo_compare.guest``."""

import argparse
from dataclasses import dataclass

from colo_compare.guest.boot import Identity
from colo_compare.guest.layout import Geometry
from colo_compare.guest.noise import Noise
from colo_compare.ports.url import parse_port_url
from colo_compare.quantities import Duration


@dataclass(frozen=True)
class Options:
    """What the guest is told."""

    port: str  # a URL of colo_compare.ports
    memory: str  # the number of a descriptor, a path, or "" for a memfd of its own
    commands: bool  # obey stdin
    control: str  # path of the control socket, "" for none
    identity: Identity
    geometry: Geometry
    noise: Noise


def parse(arguments: list[str]) -> Options:
    """Read the command line. Prints a message and raises SystemExit where it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    port = f"tap:{given.tap}?vnet_hdr=no" if given.tap else given.port
    try:
        parse_port_url(port)
        return Options(
            port,
            given.memory,
            given.commands,
            given.control,
            Identity(
                given.mac,
                given.address4,
                given.address6,
                given.gateway4,
                given.gateway6,
                given.mtu,
                given.secret,
            ),
            Geometry(
                given.connections,
                given.send_buffer * 1024,
                given.receive_buffer * 1024,
                given.entries,
                given.value * 1024,
            ),
            Noise(
                given.noise_seed,
                given.random_every,
                given.random_isn,
                float(Duration.parse(given.clock_jitter)) if given.clock_jitter else 0.0,
            ),
        )
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m colo_compare.guest",
        description="A small machine with HTTP and echo servers, whose whole state is one flat memory.",
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--tap", metavar="NAME", help="the interface that it is at the other end of")
    place.add_argument("--port", metavar="URL", help="any other port (docs/ports.md)")
    parser.add_argument(
        "--memory", default="", metavar="FD|PATH", help="its memory; default: a memfd of its own"
    )
    parser.add_argument("--control", default="", metavar="SOCKET", help="where a checkpointer controls it")
    parser.add_argument("--commands", action="store_true", help="obey JSON lines on stdin, end with it")

    who = parser.add_argument_group("identity (of a guest that is booted; one in the memory keeps its own)")
    default = Identity()
    who.add_argument("--mac", default=default.mac)
    who.add_argument("--address4", default=default.address4, metavar="ADDRESS/LENGTH")
    who.add_argument("--address6", default=default.address6, metavar="ADDRESS/LENGTH")
    who.add_argument("--gateway4", default="", metavar="ADDRESS")
    who.add_argument("--gateway6", default="", metavar="ADDRESS")
    who.add_argument("--mtu", type=int, default=default.mtu, metavar="BYTES")
    who.add_argument("--secret", default=default.secret, help="behind its initial sequence numbers")

    size = parser.add_argument_group("geometry (of a guest that is booted)")
    usual = Geometry()
    size.add_argument("--connections", type=int, default=usual.connections, metavar="N")
    size.add_argument("--send-buffer", type=int, default=usual.send_bytes // 1024, metavar="KIB")
    size.add_argument("--receive-buffer", type=int, default=usual.receive_bytes // 1024, metavar="KIB")
    size.add_argument("--entries", type=int, default=usual.entries, metavar="N", help="of the store")
    size.add_argument("--value", type=int, default=usual.value_bytes // 1024, metavar="KIB", help="longest")

    noise = parser.add_argument_group("non-determinism, outside of its memory")
    noise.add_argument("--noise-seed", type=int, default=0, metavar="N")
    noise.add_argument(
        "--random-every", type=int, default=0, metavar="N", help="a random header in each N-th HTTP answer"
    )
    noise.add_argument("--random-isn", action="store_true", help="random initial sequence numbers")
    noise.add_argument("--clock-jitter", default="", metavar="TIME", help="the clock is fast by up to TIME")
    return parser
