import importlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from colo_compare.ports import batch
from tests.namespaces import ip, new_namespace, quiet, settle


@pytest.fixture(params=["mmsg", "_batch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Ports that move frames in plain Python, and in C where that is compiled (see .ci/test_compiled)."""
    name = f"colo_compare.ports.{request.param}"
    try:
        module = importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not compiled")
    for each in batch.__all__:
        monkeypatch.setattr(batch, each, getattr(module, each))
    return module


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace of the test's own."""
    with new_namespace():
        yield


@pytest.fixture
def veth(namespace: None) -> tuple[str, str]:
    """A cable: two interfaces that take frames of up to 65,549 bytes."""
    ip("link add left mtu 65535 type veth peer name right mtu 65535")
    quiet("left")
    quiet("right")
    settle("left", "right")
    return "left", "right"


@pytest.fixture
def tun() -> None:
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun: modprobe tun")


@pytest.fixture
def tap(namespace: None, tun: None) -> str:
    """A persistent tap."""
    ip("tuntap add dev tap0 mode tap")
    quiet("tap0")
    return "tap0"


@pytest.fixture
def unused_port() -> int:
    """A TCP port of the loopback address that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
