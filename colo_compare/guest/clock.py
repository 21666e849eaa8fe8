"""The guest's clock, which stands still while the guest does."""


class GuestClock:
    """Seconds, by the host's clock and an offset. It belongs to the device state: it is not in the memory."""

    def __init__(self, reading: float, host_now: float) -> None:
        self._offset = reading - host_now

    def read(self, host_now: float) -> float:
        """Give the guest's time."""
        return host_now + self._offset

    def to_host(self, reading: float) -> float:
        """Give the host's time at a guest's time to come."""
        return reading - self._offset

    def set(self, reading: float, host_now: float) -> None:
        """Let it run on from a reading."""
        self._offset = reading - host_now
