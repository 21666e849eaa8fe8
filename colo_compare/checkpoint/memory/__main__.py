"""The secondary's receiver as a program: ``python -m colo_compare.checkpoint.memory``.

The first line on stdout, ``ready``, says that a primary can connect.

Exit status: 0 when the guest was promoted or fenced, or at SIGTERM and SIGINT; 1 with a line on standard
error when something cannot be done or the guest is gone.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

import trio

from colo_compare.checkpoint.memory.endpoint import Endpoint
from colo_compare.checkpoint.memory.guest_control import AUTO, SocketGuest
from colo_compare.checkpoint.memory.receiver import Receiver
from colo_compare.checkpoint.memory.tracker_compare import CompareTracker
from colo_compare.checkpoint.memory.tracker_pagemap import PagemapTracker
from colo_compare.errors import CheckpointerError
from colo_compare.quantities import Duration


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the guest is promoted, fenced or gone, or a signal comes; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m colo_compare.checkpoint.memory",
        description="Keep a secondary guest ready to take over from a primary elsewhere.",
    )
    parser.add_argument("--guest", required=True, metavar="PATH", help="control socket of the guest")
    parser.add_argument(
        "--listen", required=True, metavar="ENDPOINT", help="unix:PATH, tcp:HOST:PORT or tls:HOST:PORT"
    )
    parser.add_argument(
        "--tls-dir", default="", metavar="DIR", help="with ca-cert.pem, server-cert.pem and server-key.pem"
    )
    parser.add_argument(
        "--timeout", default="3s", metavar="TIME", help="of each answer of the guest and of the primary's end"
    )
    parser.add_argument(
        "--tracker", default=AUTO, choices=(AUTO, PagemapTracker.name, CompareTracker.name), help="(auto)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        endpoint = Endpoint(options.listen, options.tls_dir)
        trio.run(_run, options.guest, endpoint, Duration.parse(options.timeout), options.tracker)
    except (CheckpointerError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(path: str, endpoint: Endpoint, patience: float, tracker: str) -> None:
    problem: CheckpointerError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_signal, nursery.cancel_scope)
        try:
            guest = await SocketGuest.attach(path, patience=patience)
            receiver = Receiver(guest, endpoint, patience=patience, tracker=tracker)
            await receiver.run(task_status=_Ready())
        except CheckpointerError as error:
            problem = error  # raised below: the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem


class _Ready:
    """Tells on stdout what a nursery would be told."""

    def started(self, _value: None = None) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()


async def _stop_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
