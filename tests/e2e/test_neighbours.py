"""The guests' tables of neighbours age by their own clocks: the secondary may have to ask by itself."""

from collections.abc import Callable

import pytest

from colo_compare.demo import link
from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import CLIENT4, CLIENT6, GUEST4, GUEST6, Lab
from tests.e2e.traffic import ask
from tests.e2e.verdict import assert_quiet

# All of it fits into what a kernel keeps while it asks (net.ipv4.neigh.*.unres_qlen_bytes, 208 KiB). A guest
# that loses a burst of its own output this way repairs it by its retransmission timer, which takes seconds.
SIZE = 64 << 10


@pytest.mark.parametrize(("host", "client"), [(GUEST4, CLIENT4), (GUEST6, CLIENT6)])
def test_a_secondary_that_must_ask_who_the_client_is(
    pair: Callable[..., Lab], host: str, client: str
) -> None:
    lab = pair()
    with Connection(lab.client, host) as connection:
        connection.download(SIZE)
        lab.guests[1].namespace.call(link.forget_neighbour, "eth0", client)
        download = connection.download(SIZE)
        lab.guests[1].namespace.call(link.forget_neighbour, "eth0", client)
        answers = ask(lab, host, ECHO_PORT, [b"echo"])

    assert download.sha256 == digest(SIZE)
    assert answers == [b"echo"]
    assert_quiet(lab, compared=2 * SIZE)
