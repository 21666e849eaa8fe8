"""Downloads: the bytes are right, nothing diverges, and no checkpoint is asked for but the first."""

from collections.abc import Callable

import pytest

from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.lab import GUEST4, GUEST6, Lab, Wiring
from tests.e2e.verdict import assert_quiet

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
@pytest.mark.parametrize(
    "wiring",
    [
        Wiring(),
        Wiring(offloads=False),
        Wiring(taps=True),
        Wiring(mtu=9000),
    ],
    ids=["packet", "packet-no-offloads", "tap", "jumbo"],
)
def test_a_download_is_the_same_bytes(pair: Callable[..., Lab], wiring: Wiring, host: str) -> None:
    lab = pair(wiring)

    with Connection(lab.client, host) as connection:
        download = connection.download(SIZE)

    assert download.sha256 == digest(SIZE)
    assert_quiet(lab, compared=SIZE)


@pytest.mark.parametrize("vnet_hdr", ["yes", "no"])
@pytest.mark.parametrize("kind", ["packet", "tap"])
def test_with_and_without_virtio_net_headers(pair: Callable[..., Lab], kind: str, vnet_hdr: str) -> None:
    parameter = f"vnet_hdr={vnet_hdr}"
    lab = pair(
        Wiring(taps=kind == "tap", offloads=vnet_hdr == "yes"),
        ports={"client": parameter, "primary": parameter, "secondary": parameter},
    )

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE)

    assert download.sha256 == digest(SIZE)
    assert_quiet(lab, compared=SIZE)


@pytest.mark.parametrize("timestamps", [(2, 1), (1, 2), (0, 0)], ids=["plain-random", "random-plain", "off"])
def test_whatever_the_guests_do_with_timestamps(
    pair: Callable[..., Lab], timestamps: tuple[int, int]
) -> None:
    lab = pair(Wiring(timestamps=timestamps))

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE)

    assert download.sha256 == digest(SIZE)
    assert_quiet(lab, compared=SIZE)
