"""The connection table against a dictionary."""

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_compare.guest import Geometry
from colo_compare.guest import connection as table
from colo_compare.guest.header import open_memory
from tests.guest.peer import new_memory

GEOMETRY = Geometry(connections=12, send_bytes=4096, receive_bytes=4096, entries=1, value_bytes=4096)


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60))
def test_connections_are_found_by_their_keys(steps: list[tuple[bool, int]]) -> None:
    memory, _, geometry = open_memory(new_memory(GEOMETRY))
    model: dict[bytes, int] = {}
    for adding, number in steps:
        key = bytes(table.KEY_BYTES - 1) + bytes((number,))
        if adding and key not in model:
            made = table.add(memory, geometry, key)
            if len(model) == 12:
                assert made is None
                continue
            assert made is not None
            made.state = table.ESTABLISHED
            model[key] = made.index
        elif not adding and key in model:
            found = table.find(memory, geometry, key)
            assert found is not None
            table.remove(memory, geometry, found)
            del model[key]
        for each in range(16):
            key = bytes(table.KEY_BYTES - 1) + bytes((each,))
            found = table.find(memory, geometry, key)
            assert (found.index if found else None) == model.get(key)
