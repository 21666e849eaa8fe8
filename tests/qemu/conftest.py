"""Real guests: two Linux kernels in QEMU under TCG, the real daemon, and a client in a namespace."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from colo_compare.demo.namespace import Namespace
from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.image import Image, image
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.monitor import SpareMonitor
from colo_compare.errors import SetupError

HERE = Path(__file__).parent
TUN = Path("/dev/net/tun")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="session")
def guest_image() -> Image:
    try:
        Namespace("probe").close()
        TUN.open("rb+", buffering=0).close()
    except SetupError as error:
        pytest.skip(str(error))
    except OSError as error:
        pytest.skip(f"{TUN} cannot be opened: {error.strerror}")
    try:
        return image()
    except SetupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def booted(guest_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[Lab], bool], Path]:
    """Give a function that gives the state of a guest that has booted, of which each kind boots but once.

    It has had no connection yet: what a kernel draws for its first one (the keys of its sequence numbers and
    timestamps) is drawn anew by each guest that goes on from the state.
    """
    directory = tmp_path_factory.mktemp("booted")
    states: dict[tuple[str, bool], Path] = {}

    def state(kind: type[Lab], vnet_hdr: bool) -> Path:
        key = (kind.kernel, vnet_hdr)
        if key not in states:
            with kind(guest_image, vnet_hdr=vnet_hdr) as lab:
                lab.machines[0].start(incoming=False, vnet_hdr=vnet_hdr, kernel=kind.kernel)
                lab.machines[0].wait_until_up()
                with SpareMonitor(lab.machines[0]) as monitor:
                    monitor.save(directory / str(len(states)))
            states[key] = directory / str(len(states))
        return states[key]

    return state


@pytest.fixture
def pair(guest_image: Image, booted: Callable[[type[Lab], bool], Path]) -> Iterator[Callable[..., Lab]]:
    """Give a function that starts two guests and protects them: ``pair(checkpointer={...})``."""
    with ExitStack() as stack:

        def build(
            kind: type[Lab] = Lab,
            *,
            vnet_hdr: bool = False,
            tcp: bool = False,
            checkpointer: Table | None = None,
        ) -> Lab:
            lab = stack.enter_context(kind(guest_image, vnet_hdr=vnet_hdr))
            stack.callback(lambda: print(lab.logs()))  # seen where a test fails
            lab.boot(None if kind.boots_alone else booted(kind, vnet_hdr))
            lab.protect(checkpointer=checkpointer, tcp=tcp)
            return lab

        yield build
