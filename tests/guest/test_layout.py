"""The memory's parts and records: none lies over another."""

import pytest

from colo_compare.guest import Geometry, Identity, Machine, boot
from colo_compare.guest.connection import Connection
from colo_compare.guest.header import Header
from colo_compare.guest.layout import CONNECTION_BYTES, ENTRY_BYTES, NEIGHBOUR_BYTES, PAGE
from colo_compare.guest.neighbours import Neighbour
from colo_compare.guest.records import Raw, Record, Word
from colo_compare.guest.runs import MAX_RUNS
from colo_compare.guest.store import Entry
from tests.guest.peer import SMALL, new_memory


@pytest.mark.parametrize(
    ("record", "size"),
    [(Header, PAGE), (Connection, CONNECTION_BYTES), (Neighbour, NEIGHBOUR_BYTES), (Entry, ENTRY_BYTES)],
)
def test_no_field_lies_over_another(record: type[Record], size: int) -> None:
    used: list[int] = []
    for field in vars(record).values():
        if isinstance(field, Word):
            used.append(field.index)
        elif isinstance(field, Raw):
            used += range(field.index, field.index + -(-field.size // 8))
    if record is Connection:
        for start in (Connection.runs_index, Connection.sacked_index):
            used += range(start, start + 2 * MAX_RUNS)
    assert len(used) == len(set(used))
    assert max(used) * 8 < size


@pytest.mark.parametrize("geometry", [SMALL, Geometry(), Geometry(1, 4096, 4096, 1, 4096)])
def test_the_parts_follow_each_other_page_by_page(geometry: Geometry) -> None:
    parts = [
        geometry.neighbours_at, geometry.parcels_at, geometry.buckets_at, geometry.connections_at,
        geometry.entries_at, geometry.values_at, geometry.send_at, geometry.receive_at, geometry.size,
    ]  # fmt: skip
    assert parts == sorted(set(parts))
    assert all(part % PAGE == 0 for part in parts)
    assert geometry.buckets >= 2 * geometry.connections


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"connections": 5000},
        {"entries": 0},
        {"send_bytes": 5000},
        {"receive_bytes": 1024},
        {"value_bytes": 1 << 27},
    ],
)
def test_a_geometry_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"guest has|whole pages"):
        Geometry(**wrong)


@pytest.mark.parametrize(
    "identity",
    [
        Identity(mtu=1000),
        Identity(mtu=9000),
        Identity(mac="01:00:00:00:00:00"),
        Identity(mac="02:00"),
        Identity(address4="10.0.0.256/24"),
        Identity(address6="10.0.0.1/24"),
        Identity(gateway4="nowhere"),
    ],
)
def test_an_identity_that_cannot_be_is_refused(identity: Identity) -> None:
    with pytest.raises(ValueError, match=r"."):
        boot(memoryview(bytearray(SMALL.size)), SMALL, identity)


def test_a_memory_without_a_guest_is_refused() -> None:
    with pytest.raises(ValueError, match="whole pages"):
        Machine(memoryview(bytearray(100)))
    with pytest.raises(ValueError, match="no guest"):
        Machine(memoryview(bytearray(SMALL.size)))
    with pytest.raises(ValueError, match="needs"):
        boot(memoryview(bytearray(SMALL.size - PAGE)), SMALL, Identity())
    with pytest.raises(ValueError, match="needs"):
        Machine(new_memory()[:-PAGE])
    memory = new_memory()
    memory[8] = 99
    with pytest.raises(ValueError, match="layout 99"):
        Machine(memory)


def test_a_memory_may_be_larger_than_the_guest() -> None:
    memory = memoryview(bytearray(SMALL.size + 10 * PAGE))
    boot(memory, SMALL, Identity())
    assert Machine(memory).next_timer() == float("inf")
