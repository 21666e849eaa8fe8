"""`colo-compare demo`: divergences and failovers, in network namespaces of its own."""

import argparse
import signal
import sys
from http.client import HTTPException
from typing import Final, NoReturn

from colo_compare.errors import ControlError
from colo_compare.quantities import Size

__all__ = ["add_arguments", "run"]

SIZE: Final = 96 << 20  # bytes of the download
SIZE_OF_REAL_GUESTS: Final = 16 << 20  # they are slow where there is no KVM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--guests",
        choices=("embedded", "kernel"),
        default="embedded",
        help="embedded: machines whose whole state is replicated (default); kernel: namespaces with Linux's "
        "own TCP, which are equal from the start",
    )
    parser.add_argument(
        "--vmm",
        choices=("qemu",),
        help="real Linux guests in a virtual machine monitor instead: QEMU's own COLO copies them",
    )
    parser.add_argument(
        "--size",
        type=_size,
        help="of the download (default: 96MiB, with --vmm 16MiB)",
        metavar="SIZE",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if everything held that it shows, 1 if not.

    Raises SetupError when the machine does not allow it.
    """
    from colo_compare.demo.divergence import show_divergence
    from colo_compare.demo.failover import show_failover
    from colo_compare.demo.namespace import become_root
    from colo_compare.demo.qemu.image import image
    from colo_compare.demo.qemu.story import show_guests
    from colo_compare.demo.screen import Screen
    from colo_compare.demo.succession import show_succession

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    # Made before the user namespace, which apt-get does not like.
    guest = image() if args.vmm else None
    become_root()
    screen = Screen(sys.stdout)
    try:
        if guest is not None:
            show_guests(screen, guest, args.size or SIZE_OF_REAL_GUESTS)
        elif args.guests == "kernel":
            show_failover(screen, args.size or SIZE)
            show_divergence(screen)
        else:
            show_succession(screen, args.size or SIZE)
    except (OSError, HTTPException, ControlError) as error:  # what a client sees that was not served
        screen.check("the client", f"{type(error).__name__}: {error}", held=False)
    finally:
        screen.rest()
    screen.summary()
    return 0 if screen.all_held() else 1


def _size(text: str) -> int:
    try:
        return int(Size.parse(text))  # a plain number: a Size prints itself with its unit, in a URL too
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _end(number: int, _: object) -> NoReturn:
    """End by an exception, so that everything is taken away on the way out."""
    sys.exit(128 + number)
