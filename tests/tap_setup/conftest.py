import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tap_setup.scene import Scene, shell

_numbers = itertools.count()


@pytest.fixture(scope="session")
def tun_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tun device node that every user may open, as it is on most machines."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes taps and network namespaces")
    usual = Path("/dev/net/tun")
    if usual.exists() and stat.S_IMODE(usual.stat().st_mode) & 0o006 == 0o006:
        return usual
    directory = tmp_path_factory.mktemp("dev")
    node = directory / "tun"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
    node.chmod(0o666)
    try:
        os.close(os.open(node, os.O_RDWR))
    except OSError as error:
        pytest.skip(f"needs a tun device: {error.strerror}; modprobe tun, or mount {directory} without nodev")
    return node


@pytest.fixture
def scene(tun_device: Path) -> Iterator[Scene]:
    name = f"tapsetup{os.getpid()}n{next(_numbers)}"
    shell(f"ip netns add {name}")
    try:
        yield Scene(name, tun_device)
    finally:
        shell(f"ip netns delete {name}")


@pytest.fixture
def ethtool() -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("needs ethtool, to read the offloads with another tool: apt-get install ethtool")
