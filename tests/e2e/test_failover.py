"""A guest dies, at any moment; the client keeps its connection, or is told the truth."""

import hashlib
import random
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from colo_compare.demo.client import Connection, Download
from colo_compare.demo.content import digest
from colo_compare.demo.lab import CLIENT4, GUEST4, GUEST6, Lab, Wiring
from tests.e2e.traffic import ping
from tests.e2e.verdict import settled

MIB = 1 << 20
SIZE = 24 * MIB
MOMENTS = [random.Random(f"moment {n}").randrange(SIZE) for n in range(20)]

# A dead primary is noticed at once, as its link goes down with it. What the client may have to wait for is
# one retransmission timeout of the new primary (200 ms at least, RFC 6298 as Linux has it), doubled once.
MAX_STALL = 1.0  # seconds


class Once:
    """Calls a function once, when a download has come so far."""

    def __init__(self, at: int, function: Callable[[], None]) -> None:
        self.at = at
        self.function = function
        self.done = False

    def __call__(self, download: Download) -> None:
        if not self.done and download.received >= self.at:
            self.done = True
            self.function()


def assert_promoted(lab: Lab) -> None:
    counters = settled(lab)
    assert counters["promotions"] == 1
    assert not any(counters["divergences"].values()), counters["divergences"]
    assert lab.proxy.status()["mode"] == "solo"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_download_survives_its_primary(
    pair: Callable[..., Lab], moment: int, record_property: Callable[[str, object], None]
) -> None:
    lab = pair()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE, Once(moment, lab.guests[0].kill))

    record_property("stall", download.stall)
    print(f"killed after {moment} bytes: the client waited {download.stall * 1000:.0f} ms")
    assert download.sha256 == digest(SIZE)
    assert download.stall < MAX_STALL
    assert download.ports[0] == download.ports[1]
    assert_promoted(lab)


@pytest.mark.parametrize(
    ("wiring", "host"),
    [
        (Wiring(), GUEST6),
        (Wiring(taps=True), GUEST4),
        (Wiring(offloads=False), GUEST6),
        (Wiring(timestamps=(2, 1)), GUEST4),
        (Wiring(timestamps=(1, 2)), GUEST4),
        (Wiring(timestamps=(0, 0)), GUEST4),
    ],
    ids=["v6", "tap", "v6-no-offloads", "plain-random", "random-plain", "no-timestamps"],
)
def test_whatever_the_wiring(pair: Callable[..., Lab], wiring: Wiring, host: str) -> None:
    lab = pair(wiring)

    with Connection(lab.client, host) as connection:
        download = connection.download(SIZE, Once(SIZE // 3, lab.guests[0].kill))
        again = connection.download(MIB)

    assert download.sha256 == digest(SIZE)
    assert again.sha256 == digest(MIB)
    assert download.stall < MAX_STALL
    assert_promoted(lab)


@pytest.mark.parametrize(
    "fault", ["fault=delay:10ms", "fault_send=loss:0.02,seed:7"], ids=["lags", "misses-frames"]
)
def test_a_secondary_that_is_behind_takes_over(pair: Callable[..., Lab], fault: str) -> None:
    lab = pair(ports={"secondary": fault})

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE, Once(SIZE // 2, lab.guests[0].kill))

    assert download.sha256 == digest(SIZE)
    assert download.ports[0] == download.ports[1]
    assert_promoted(lab)


def test_a_connection_that_a_guest_opened_goes_on(pair: Callable[..., Lab]) -> None:
    lab = pair()
    size = 16 * MIB
    sha = hashlib.sha256()
    received = 0
    ping(lab, GUEST4, [b""])  # both guests know the client's MAC from now on
    with lab.client.call(socket.create_server, (CLIENT4, 9000)) as listener:
        listener.settimeout(10)
        for guest in lab.guests:
            guest.tell(call_out=[CLIENT4, 9000, 40000, size])
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            while chunk := connection.recv(MIB):
                sha.update(chunk)
                if received < size // 2 <= received + len(chunk):
                    lab.guests[0].kill()
                received += len(chunk)
            connection.sendall(b"all of it")

    assert sha.hexdigest() == digest(size)
    assert lab.guests[1].answer() == {"answer": "all of it"}
    assert_promoted(lab)


def test_an_idle_connection_goes_on(pair: Callable[..., Lab]) -> None:
    lab = pair()

    with Connection(lab.client, GUEST4) as connection:
        before = connection.download(MIB)
        lab.guests[0].kill()
        after = connection.download(MIB)

    assert before.sha256 == after.sha256 == digest(MIB)
    assert before.ports == after.ports
    assert_promoted(lab)


def test_an_upload_goes_on(pair: Callable[..., Lab]) -> None:
    lab = pair()
    size = 64 * MIB

    with Connection(lab.client, GUEST4) as connection, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(connection.upload, size)
        while lab.proxy.status()["counters"]["received_bytes"]["client"] < size // 4:
            assert not answer.done()
        lab.guests[0].kill()

        assert answer.result() == digest(size)
    assert_promoted(lab)


def test_ten_downloads_go_on(pair: Callable[..., Lab]) -> None:
    lab = pair()
    connections = [Connection(lab.client, GUEST4) for _ in range(10)]
    kill = Once(MIB, lab.guests[0].kill)

    def download(connection: Connection) -> Download:
        with connection:
            return connection.download(4 * MIB, kill if connection is connections[0] else None)

    with ThreadPoolExecutor(len(connections)) as threads:
        downloads = list(threads.map(download, connections))

    assert {download.sha256 for download in downloads} == {digest(4 * MIB)}
    assert_promoted(lab)


def test_new_connections_reach_the_new_primary(pair: Callable[..., Lab]) -> None:
    lab = pair()
    with Connection(lab.client, GUEST4) as connection:
        connection.download(MIB)
    lab.guests[0].kill()

    with Connection(lab.client, GUEST4) as connection:
        assert connection.download(MIB).sha256 == digest(MIB)
    assert_promoted(lab)


def test_an_operator_moves_the_service(pair: Callable[..., Lab]) -> None:
    lab = pair()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE, Once(SIZE // 2, lab.proxy.promote))

    assert download.sha256 == digest(SIZE)
    assert_promoted(lab)


def test_the_secondary_dies(pair: Callable[..., Lab]) -> None:
    lab = pair()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE, Once(SIZE // 2, lab.guests[1].kill))

    assert download.sha256 == digest(SIZE)
    assert download.stall < MAX_STALL
    counters = settled(lab)
    assert counters["secondaries_lost"] == 1
    assert counters["promotions"] == 0
    assert lab.proxy.status()["mode"] == "solo"


@pytest.mark.parametrize("first", [0, 1], ids=["primary-first", "secondary-first"])
def test_both_die(pair: Callable[..., Lab], first: int) -> None:
    lab = pair()

    def kill_both() -> None:
        lab.guests[first].kill()
        while lab.proxy.status()["mode"] != "solo":
            pass
        lab.guests[1 - first].kill()

    with Connection(lab.client, GUEST4, patience=1.0) as connection:
        with pytest.raises(TimeoutError):  # a dead host, not one that closed the connection
            connection.download(SIZE, Once(SIZE // 2, kill_both))
        assert lab.proxy.wait() != 0

    assert "gone" in lab.proxy.last_words()
    assert "Traceback" not in lab.proxy.log.read_text()
