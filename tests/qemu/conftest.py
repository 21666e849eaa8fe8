"""Real guests: two Linux kernels in QEMU under TCG, the real daemon, and a client in a namespace."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from colo_compare.demo.namespace import Namespace
from colo_compare.demo.proxy_process import Table
from colo_compare.errors import SetupError
from tests.qemu.image import Image, image
from tests.qemu.lab import Lab

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
    return image()


@pytest.fixture
def pair(guest_image: Image) -> Iterator[Callable[..., Lab]]:
    """Give a function that boots two guests and protects them: ``pair(checkpointer={...})``."""
    with ExitStack() as stack:

        def build(
            kind: type[Lab] = Lab,
            *,
            vnet_hdr: bool = False,
            tcp: bool = False,
            checkpointer: Table | None = None,
        ) -> Lab:
            lab = stack.enter_context(kind(guest_image, vnet_hdr=vnet_hdr))
            lab.boot()
            lab.protect(checkpointer=checkpointer, tcp=tcp)
            return lab

        yield build
