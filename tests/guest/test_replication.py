"""Whoever copies the memory copies the guest, at any moment; and two guests understand each other."""

from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_compare.demo.content import blocks
from colo_compare.guest import Machine
from tests.guest.pair_of_hosts import Cable

SIZE = 60_000
DIGEST = crc32(b"".join(blocks(SIZE)))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.02, 0.1, 0.25]),
    repeat=st.sampled_from([0.0, 0.1]),
    spread=st.sampled_from([0.0, 0.0005, 0.01]),
    version=st.sampled_from([4, 6]),
)
def test_an_echo_comes_back_whole_whatever_the_cable_does(
    seed: int, loss: float, repeat: float, spread: float, version: int
) -> None:
    cable = Cable(seed, loss, repeat, spread)
    near = cable.hosts[0]
    for attempt in range(
        12
    ):  # an address, or a handshake, may be given up: that is no answer, not a wrong one
        cable.send(0, near.call("10.0.0.2" if version == 4 else "fd00::2", 7, SIZE, cable.now))
        cable.run(until=cable.now + 600)
        if near.header.call_state == 2:
            break
        assert loss > 0.2 or attempt == 0
    assert (near.header.call_answer, near.header.call_digest) == (SIZE, DIGEST)
    cable.run(until=cable.now + 1000)
    assert not cable.on_the_way
    assert all(host.next_timer() == float("inf") for host in cable.hosts)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.05]),
    steps=st.integers(0, 400),
    side=st.sampled_from([0, 1]),
)
def test_a_copy_has_the_same_future(seed: int, loss: float, steps: int, side: int) -> None:
    cable = Cable(seed, loss, 0.05, 0.002)
    cable.send(0, cable.hosts[0].call("fd00::2", 7, 20_000, cable.now))
    cable.send(0, cable.hosts[0].call("10.0.0.2", 7, 20_000, cable.now))
    for _ in range(steps):
        cable.step()
    original = cable.hosts[side]
    copy = Machine(memoryview(bytearray(original.raw)))
    cable.history.clear()
    cable.run(until=cable.now + 100)
    for who, frame, now, said in cable.history:
        if who == side:
            assert (copy.handle_timer(now) if frame is None else copy.receive([frame], now)) == said
    assert copy.raw == original.raw


@settings(max_examples=20)
@given(seed=st.integers(0, 1 << 32), moments=st.sets(st.integers(0, 400), max_size=8))
def test_a_connection_survives_moves_from_memory_to_memory(seed: int, moments: set[int]) -> None:
    cable = Cable(seed, 0.02, 0.02, 0.002)
    cable.send(0, cable.hosts[0].call("10.0.0.2", 7, SIZE, cable.now))
    number = 0
    while cable.hosts[0].header.call_state != 2 and cable.now < 600:
        if number in moments:
            cable.hosts = [Machine(memoryview(bytearray(host.raw))) for host in cable.hosts]
        cable.step()
        number += 1
    assert cable.hosts[0].header.call_digest == DIGEST


def test_a_machine_works_on_whatever_its_memory_holds() -> None:
    """A checkpoint writes over the memory below a machine that stands still."""
    cable = Cable(seed=1)
    cable.send(0, cable.hosts[0].call("10.0.0.2", 7, 20_000, cable.now))
    spare = Machine(memoryview(bytearray(cable.hosts[1].raw)))
    for _ in range(25):
        cable.step()
    spare.raw[:] = cable.hosts[1].raw
    cable.hosts[1] = spare
    cable.run(until=60)
    assert cable.hosts[0].header.call_answer == 20_000
