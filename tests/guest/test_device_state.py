"""Device state and clock: what of a guest is not in its memory."""

import pytest

from colo_compare.guest.clock import GuestClock
from colo_compare.guest.device_state import DeviceState, decode


def test_a_state_comes_back_as_it_was() -> None:
    for frames in ((), (b"a" * 60,), (b"", b"bb", b"c" * 1514)):
        state = DeviceState(12.25, frames)
        assert decode(state.encode()) == state


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense" * 3,
        DeviceState(1.0, ()).encode()[:-1],
        DeviceState(1.0, ()).encode() + b"x",
        DeviceState(1.0, (b"abc",)).encode()[:-1],
        DeviceState(1.0, (b"abc", b"")).encode()[:-4],
        DeviceState(1.0, ()).encode().replace(b"EMBG\x01", b"EMBG\x02"),
    ],
)
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="device state"):
        decode(data)


def test_the_clock_stands_still_with_the_guest() -> None:
    clock = GuestClock(5.0, host_now=1000.0)
    assert clock.read(1002.0) == 7.0
    assert clock.to_host(7.0) == 1002.0
    clock.set(7.0, host_now=1060.0)  # it stood still for 58 s
    assert clock.read(1061.0) == 8.0
