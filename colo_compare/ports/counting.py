"""What every port counts of its frames. Compiled, as it runs for each batch."""

from colo_compare.ports.batch import size_of
from colo_compare.ports.port import PortCounters


def count_received(counters: PortCounters, messages: list[bytes], header_len: int) -> int:
    """Count messages, and give their bytes; virtio-net headers are no bytes of the network."""
    count = len(messages)
    size = size_of(messages, 0, count) - count * header_len
    counters.received_frames += count
    counters.received_bytes += size
    return size


def count_sent(counters: PortCounters, messages: list[bytes], start: int, end: int, header_len: int) -> None:
    """Count messages[start:end] likewise."""
    counters.sent_frames += end - start
    counters.sent_bytes += size_of(messages, start, end) - (end - start) * header_len
