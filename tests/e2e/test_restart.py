"""The proxy itself dies and comes back beside running guests (rule 9)."""

from collections.abc import Callable

from colo_compare.demo.client import Connection, Download
from colo_compare.demo.content import digest
from colo_compare.demo.lab import GUEST4, Lab
from tests.e2e.verdict import settled

MIB = 1 << 20


def test_connections_after_a_restart_are_protected(pair: Callable[..., Lab]) -> None:
    lab = pair()
    with Connection(lab.client, GUEST4) as connection:
        connection.download(MIB)
    lab.proxy.kill()
    lab.proxy.start()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(MIB, kill_primary_once(lab))

    assert download.sha256 == digest(MIB)
    counters = settled(lab)
    assert counters["requests"]["startup"] == 1
    assert counters["promotions"] == 1


def kill_primary_once(lab: Lab) -> Callable[[Download], None]:
    def kill(download: Download) -> None:
        if not killed and download.received > MIB // 2:
            killed.append(True)
            lab.guests[0].kill()

    killed: list[bool] = []
    return kill
