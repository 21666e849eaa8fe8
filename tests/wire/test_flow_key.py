import struct

from hypothesis import given
from hypothesis import strategies as st

from colo_compare.wire.flow_key import (
    PLAIN_KEY_LEN,
    plain_addresses,
    plain_key,
    plain_ports,
    turned_addresses,
    turned_ports,
)

KEYS = st.binary(min_size=PLAIN_KEY_LEN, max_size=PLAIN_KEY_LEN)


@given(KEYS)
def test_two_numbers_are_the_key(key: bytes) -> None:
    addresses, ports = plain_addresses(key), plain_ports(key)
    assert (addresses, ports) == struct.unpack(">qI", key)
    assert plain_key(addresses, ports) == key


@given(KEYS)
def test_turned_round(key: bytes) -> None:
    other = key[4:8] + key[:4] + key[10:] + key[8:10]
    assert turned_addresses(plain_addresses(key)) == plain_addresses(other)
    assert turned_ports(plain_ports(key)) == plain_ports(other)
