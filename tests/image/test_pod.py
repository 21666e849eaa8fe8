"""The pod of the manifests, run by runc: the init container makes the taps, and traffic passes the proxy."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from colo_compare.demo import link
from colo_compare.demo.client import Connection, Download
from colo_compare.demo.content import digest
from colo_compare.demo.lab import GUEST4, GUEST6, Lab
from colo_compare.demo.namespace import Namespace
from colo_compare.demo.proxy_process import Table
from tests.image.pod import Container, Pod

Json = dict[str, Any]
SIZE = 16 << 20
PORT = 9464
STARTS = 30.0  # seconds
INTERFACES = {"client": "net1", "primary": "net2", "secondary": "net3"}

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("runc")]


class PodLab(Lab):
    """A lab whose proxy is the pod, with interfaces named as Multus names them."""

    def __init__(self, taps: Container, proxy: Container) -> None:
        self.taps = taps
        self.container = proxy
        super().__init__()
        self.proxy_namespace.call(link.set_up_loopback)

    def lay_cable(self, name: str, host: Namespace) -> None:
        super().lay_cable(INTERFACES[name], host)

    def start_proxy(self, tables: Mapping[str, Table]) -> None:
        """Run the pod as a kubelet would: the init container first, then the proxy until it is ready."""
        network = self.proxy_namespace.call(network_namespace)
        self.stack.callback(self.taps.close)
        self.taps.start(network)
        assert self.taps.wait() == 0, self.taps.log.read_text()
        self.stack.callback(self.container.close)
        self.container.start(network)
        end = time.monotonic() + STARTS
        while self.get("/readyz") != 200:
            assert time.monotonic() < end, self.container.log.read_text()
            time.sleep(0.05)

    def status(self) -> Json:
        """Give what `colo-compare status --json` says in the container."""
        status: Json = json.loads(self.container.execute("colo-compare", "status", "--json").stdout)
        return status

    def get(self, path: str) -> int:
        """Ask as the kubelet does; gives the HTTP status, 0 where nobody answers."""
        return self.proxy_namespace.call(get, path)


def get(path: str) -> int:
    connection = HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def network_namespace() -> str:
    return f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"


@contextmanager
def running(
    manifests: list[Json], image: Json, root: Path, directory: Path, **environment: str
) -> Iterator[PodLab]:
    """Run the pod between the lab's hosts, and traffic through it."""
    pod = Pod(manifests, image, root, directory)
    with PodLab(pod.container("taps"), pod.container("proxy", **environment)) as lab:
        lab.start({})
        yield lab


PROTECT = {"COLO_COMPARE_PROXY__MODE": "protect", "COLO_COMPARE_CHECKPOINTER__ASSUME_DETERMINISTIC": "true"}


@pytest.fixture(scope="module")
def protecting(
    manifests: list[Json], image: Json, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodLab]:
    with running(manifests, image, root, tmp_path_factory.mktemp("pod"), **PROTECT) as lab:
        yield lab


def test_the_proxy_has_no_rights(protecting: PodLab) -> None:
    status = protecting.container.execute("cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65532"] * 4
    assert {name: int(fields[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Amb")} == {
        "Prm": 0, "Eff": 0, "Bnd": 0, "Amb": 0,
    }  # fmt: skip
    assert fields["NoNewPrivs"] == "1"


def test_nothing_but_its_own_directory_can_be_written(protecting: PodLab) -> None:
    for path in ("/opt/colo-compare/x", "/tmp/x", "/etc/colo-compare/x", "/x"):
        assert protecting.container.execute("touch", path).returncode != 0, path
    assert protecting.container.execute("touch", "/run/colo-compare/x").returncode == 0


def test_the_kubelet_finds_it_alive_and_ready(protecting: PodLab, manifests: list[Json]) -> None:
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
        assert protecting.get(container[probe]["httpGet"]["path"]) == 200


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_a_download_passes(protecting: PodLab, host: str) -> None:
    compared = protecting.status()["counters"]["compared_bytes"]

    with Connection(protecting.client, host) as connection:
        download = connection.download(SIZE)

    assert download.sha256 == digest(SIZE)
    status = protecting.status()
    assert status["protected"]
    assert status["compiled"]
    assert status["counters"]["compared_bytes"] - compared > SIZE
    assert {name: port["url"] for name, port in status["ports"].items()} == {
        "client": "tap:tap-client", "primary": "tap:tap-pri", "secondary": "tap:tap-sec",
    }  # fmt: skip


def test_the_health_check_says_whether_a_daemon_answers(protecting: PodLab, image: Json) -> None:
    kind, *argv = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert protecting.container.execute(*argv).returncode == 0
    elsewhere = ["env", "COLO_COMPARE_CONTROL__SOCKET=/run/colo-compare/none.sock"]
    assert protecting.container.execute(*elsewhere, *argv).returncode != 0


def test_a_download_outlives_its_server_and_the_pod_ends_in_peace(protecting: PodLab) -> None:
    """The last of this module's tests on this pod."""

    promoted = False

    def on_chunk(so_far: Download) -> None:
        nonlocal promoted
        if so_far.received > SIZE // 2 and not promoted:
            promoted = True
            protecting.guests[0].kill()
            done = protecting.container.execute("colo-compare", "promote")
            assert done.returncode == 0, done.stderr

    with Connection(protecting.client, GUEST4) as connection:
        download = connection.download(SIZE, on_chunk)

    assert promoted
    assert download.sha256 == digest(SIZE)
    assert download.ports[0] == download.ports[1]
    protecting.container.signal("TERM")
    assert protecting.container.wait() == 0


def test_as_it_is_shipped_it_observes(manifests: list[Json], image: Json, root: Path, tmp_path: Path) -> None:
    with running(manifests, image, root, tmp_path) as lab:
        with Connection(lab.client, GUEST4) as connection:
            download = connection.download(SIZE)

        assert download.sha256 == digest(SIZE)
        status = lab.status()
        assert status["mode"] == "observe"
        assert status["counters"]["compared_bytes"] > SIZE
        assert not any(status["counters"]["divergences"].values())
