"""Guests that say the same in other ways: other segment sizes, another pace, another receive window."""

from collections.abc import Callable

import pytest

from colo_compare.demo import link
from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.lab import GUEST4, GUEST6, Lab
from colo_compare.demo.namespace import sysctl
from tests.e2e.verdict import assert_quiet

SIZE = 8 << 20


@pytest.mark.parametrize("without", [0, 1], ids=["primary", "secondary"])
@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_one_guest_without_offloads(pair: Callable[..., Lab], host: str, without: int) -> None:
    lab = pair()
    lab.guests[without].namespace.call(link.set_offloads, "eth0", on=False)

    with Connection(lab.client, host) as connection:
        assert connection.download(SIZE).sha256 == digest(SIZE)
        assert connection.upload(SIZE) == digest(SIZE)

    assert_quiet(lab, compared=SIZE)


def test_another_congestion_control(pair: Callable[..., Lab]) -> None:
    lab = pair()
    lab.guests[1].namespace.call(sysctl, "net.ipv4.tcp_congestion_control", "reno")

    with Connection(lab.client, GUEST4) as connection:
        assert connection.download(SIZE).sha256 == digest(SIZE)

    assert_quiet(lab, compared=SIZE)


@pytest.mark.parametrize("small", [0, 1], ids=["primary", "secondary"])
def test_one_guest_with_a_small_receive_window(pair: Callable[..., Lab], small: int) -> None:
    """The client sees the smaller of the two windows, so that neither guest must drop what it sends."""
    lab = pair()
    lab.guests[small].namespace.call(sysctl, "net.ipv4.tcp_moderate_rcvbuf", "0")

    with Connection(lab.client, GUEST4) as connection:
        assert connection.upload(SIZE) == digest(SIZE)

    assert_quiet(lab, compared=len(digest(SIZE)))
