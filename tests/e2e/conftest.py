"""Real kernel TCP: every test here builds its own client, guests and proxy in network namespaces."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from colo_compare.demo.lab import PLAIN, Lab, Wiring
from colo_compare.demo.namespace import Namespace
from colo_compare.demo.proxy_process import Table
from colo_compare.errors import SetupError
from colo_compare.ports.tap import DEVICE

HERE = Path(__file__).parent

# The guests are deterministic, so a checkpointer that copies nothing is enough, but for the test of itself.
NULL: Table = {"backend": "null", "assume_deterministic": True}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def _namespaces() -> None:
    try:
        Namespace("probe").close()
    except SetupError as error:
        pytest.skip(f"{error}, or in `unshare --user --map-root-user --net`")


def skip_without_tun() -> None:
    """In a user namespace the device node keeps the permissions of the outside: 0666 on most machines."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        pytest.skip(f"needs {DEVICE}: {error.strerror}; modprobe tun, or chmod 0666 {DEVICE}")


@pytest.fixture
def pair() -> Iterator[Callable[..., Lab]]:
    """Give a function that builds a lab in which everything runs: ``pair(Wiring(...), proxy={...})``."""
    with ExitStack() as stack:

        def build(
            wiring: Wiring = PLAIN,
            *,
            proxy: Table | None = None,
            checkpointer: Table = NULL,
            ports: dict[str, str] | None = None,
        ) -> Lab:
            if wiring.taps:
                skip_without_tun()
            lab = stack.enter_context(Lab(wiring))
            lab.start(
                {
                    "proxy": {"mode": "protect", **(proxy or {})},
                    "ports": lab.ports(**(ports or {})),
                    "checkpointer": checkpointer,
                }
            )
            return lab

        yield build
