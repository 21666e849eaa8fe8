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


def test_a_download_goes_on_when_the_proxy_comes_back(pair: Callable[..., Lab]) -> None:
    """What `null` can do for a connection that was there before: let the primary's bytes through.

    It copies nothing, so the secondary's place in that stream stays unknown: the connection costs
    checkpoints as long as it lives. A checkpointer that copies state would align it with the first.
    """
    lab = pair(proxy={"compare_timeout": "300ms"})
    restarted: list[bool] = []

    def restart(download: Download) -> None:
        if not restarted and download.received > 4 * MIB:
            restarted.append(True)
            lab.proxy.kill()
            lab.proxy.start()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(8 * MIB, restart)
        after = settled(lab)
        new = Connection(lab.client, GUEST4)

    with new:
        assert new.download(MIB).sha256 == digest(MIB)
    assert download.sha256 == digest(8 * MIB)
    assert download.ports[0] == download.ports[1]
    assert after["requests"]["startup"] == 1
    assert after["checkpoints"]["committed"] > 1


def kill_primary_once(lab: Lab) -> Callable[[Download], None]:
    def kill(download: Download) -> None:
        if not killed and download.received > MIB // 2:
            killed.append(True)
            lab.guests[0].kill()

    killed: list[bool] = []
    return kill
