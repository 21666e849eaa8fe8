"""Tagged frames, 802.1Q and 802.1ad, with offloads: the tag lies beside the frame in the kernel."""

from collections.abc import Callable

import pytest

from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, GUEST6, Lab, Wiring
from tests.e2e.traffic import ask, ping
from tests.e2e.verdict import assert_quiet
from tests.e2e.vlan_tag import tag

SIZE = 8 << 20
VLAN = 77


@pytest.mark.parametrize("taps", [False, True], ids=["packet", "tap"])
@pytest.mark.parametrize("protocol", [0x8100, 0x88A8], ids=["802.1Q", "802.1ad"])
@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_tagged_frames_are_compared(pair: Callable[..., Lab], host: str, protocol: int, taps: bool) -> None:
    lab = pair(Wiring(taps=taps))
    try:
        for host_namespace in (lab.client, *(guest.namespace for guest in lab.guests)):
            host_namespace.call(tag, "eth0", VLAN, protocol)
    except PermissionError:
        pytest.skip("BPF programs for tc need the right to load them, which a user namespace has not")

    with Connection(lab.client, host) as connection:
        assert connection.download(SIZE).sha256 == digest(SIZE)
    assert ask(lab, host, ECHO_PORT, [b"x" * 3000]) == [b"x" * 3000]
    assert ping(lab, host, [b"ping"]) == [b"ping"]

    assert_quiet(lab, compared=SIZE + 3000)
