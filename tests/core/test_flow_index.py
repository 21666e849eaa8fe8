"""The index of flows against a dictionary."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.core.flow_index import FlowIndex
from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.wire.flow_key import PLAIN_KEY_LEN, plain_addresses, plain_ports
from colo_compare.wire.frame import Frame

# Few plain keys, so that they meet again, and a few of other lengths: no VLAN id makes a key of 12 bytes.
KEYS = st.one_of(
    st.integers(0, 7).map(lambda number: number.to_bytes(PLAIN_KEY_LEN, "big")),
    st.sampled_from((b"an IPv6 flow, say", b"and another one")),
)


def flow_of(key: bytes) -> TcpFlow:
    return TcpFlow(key, 0.0, 0)


def frame_of(key: bytes) -> Frame:
    frame = Frame(b"", 0)
    frame.join(key)
    return frame


@given(st.lists(st.tuples(st.booleans(), KEYS)))
def test_it_holds_what_a_dictionary_would(steps: list[tuple[bool, bytes]]) -> None:
    index = FlowIndex()
    model: dict[bytes, TcpFlow] = {}
    for put, key in steps:
        old = model.get(key)
        assert index.get(key) is index.of(frame_of(key)) is old
        if put:
            model[key] = flow_of(key)
            index.put(model[key])
            assert old is None or not index.has(old)
        elif old is not None:
            assert index.has(old)
            index.remove(model.pop(key))
            assert not index.has(old)
        assert len(index) == len(model)
        assert sorted(flow.key for flow in index.values()) == sorted(model)


@pytest.mark.parametrize("seed", [1, 2])
def test_many_come_and_go(seed: int) -> None:
    """More than there are slots at first, so that flows are taken from everywhere in a chain."""
    rng = random.Random(seed)
    flows = {key: flow_of(key) for key in (rng.randbytes(PLAIN_KEY_LEN) for _ in range(1000))}
    index = FlowIndex()
    for flow in flows.values():
        index.put(flow)
    assert all(index.get(key) is flow for key, flow in flows.items())
    gone = rng.sample(sorted(flows), 900)
    for key in gone:
        index.remove(flows[key])
        assert flows[key].following is None  # or it would keep others alive
    assert {id(flow) for flow in index.values()} == {id(flows[key]) for key in flows.keys() - set(gone)}
    assert not any(index.has(flows[key]) for key in gone)


@pytest.mark.parametrize("counted", ["ports", "addresses"])
@pytest.mark.parametrize("seed", [0, 1, (1 << 88) - 1, *(random.Random(n).getrandbits(88) for n in range(6))])
def test_what_is_counted_upwards_spreads_over_the_slots(counted: str, seed: int) -> None:
    """A chain of 60 would cost a frame several microseconds."""
    index = FlowIndex(seed)
    one = 1 if counted == "ports" else 1 << 32  # the other end's port comes last, its address before both
    for number in range(5000):
        key = 0x0A000002_0A000001_01BB_0400 + number * one
        index.put(flow_of(key.to_bytes(PLAIN_KEY_LEN, "big")))
    assert longest_chain(index) <= 12


def test_who_knows_one_seed_does_not_know_another() -> None:
    """Flows that fall into one slot by one seed fall into many by another."""
    known = FlowIndex()
    chosen = [key for key in map(key_of, range(60_000)) if known._slot(*numbers(key), 1024) == 0]
    for seed in (0, 0x1234_5678_9ABC_DEF0_1234):
        index = FlowIndex(seed)
        for key in chosen:
            index.put(flow_of(key))
        assert (longest_chain(index) > 20) is (seed == 0)


def key_of(number: int) -> bytes:
    return (0x0A000002_0A000001_01BB_0400 + (number << 32)).to_bytes(PLAIN_KEY_LEN, "big")


def numbers(key: bytes) -> tuple[int, int]:
    return plain_addresses(key), plain_ports(key)


def longest_chain(index: FlowIndex) -> int:
    longest = 0
    for flow in index.values():
        length = 0
        step: TcpFlow | None = flow
        while step is not None:
            step = step.following
            length += 1
        longest = max(longest, length)
    return longest
