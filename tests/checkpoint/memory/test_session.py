"""A whole session, cut, corrupted and crashed at every message: the secondary has one of two states."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_compare.checkpoint.memory.messages import HEADER_LENGTH, VERSION
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_RECEIVED
from tests.checkpoint.memory.wires import PAGE, Guest, Secondary, Tamper, Wires

PAGES = 300  # more than one stripe on each of four channels, and more than one batch


def pair(**options: object) -> Wires:
    primary = Guest(PAGES)
    for page in (0, 1, 63, 64, 65, 200, 299):
        primary.write(page, page % 250 + 1)
    primary.device = b"first"
    wires = Wires(primary, Secondary(Guest(PAGES)), **options)  # type: ignore[arg-type]  # forwarded as they are
    wires.open()
    return wires


def both_write(wires: Wires) -> None:
    """Let both guests run for a while, each its own way."""
    for page in (5, 64, 130, 299):
        wires.primary.write(page, 77)
    wires.primary.write(200, 0)
    wires.primary.device = b"second" * 5
    for page in (7, 64, 250):
        wires.secondary.guest.write(page, 99)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("checksums", [True, False])
def test_each_checkpoint_makes_the_secondary_equal(channels: int, compression: int, checksums: bool) -> None:
    wires = pair(channels=channels, compression=compression, checksums=checksums)
    assert wires.checkpoint()
    assert wires.secondary.guest.state == wires.primary.state
    both_write(wires)
    assert wires.checkpoint()
    assert wires.secondary.guest.state == wires.primary.state
    assert wires.secondary.guest.running


def test_exactly_what_was_received_or_written_is_overwritten() -> None:
    wires = pair(channels=2)
    assert wires.checkpoint()
    both_write(wires)
    assert wires.checkpoint()
    assert wires.secondary.overwritten == [PAGES, 7]  # 5, 64, 130, 200, 299 and 7, 250
    assert wires.outgoing.pages_applied == 7
    assert wires.checkpoint()
    assert wires.secondary.overwritten[-1] == 0


def test_pages_sent_before_the_pause_reach_the_cache_only() -> None:
    wires = pair(channels=2)
    assert wires.checkpoint()
    both_write(wires)
    before = wires.secondary.guest.state
    wires.presend(100)
    wires.presend(100)
    wires.settle()
    assert len(wires.backlog) == 0
    assert wires.secondary.cache == wires.primary.memory
    assert wires.secondary.guest.state == before
    wires.primary.write(5, 78)  # once more, on the same channel
    assert wires.checkpoint()
    assert wires.secondary.guest.state == wires.primary.state


def test_an_aborted_checkpoint_leaves_the_old_state_and_nothing_to_forget() -> None:
    wires = pair(channels=2)
    assert wires.checkpoint()
    both_write(wires)
    before = wires.secondary.guest.state
    assert wires.send_checkpoint()
    wires.say(wires.outgoing.abort())
    wires.primary.write(6, 5)
    wires.presend(100)
    wires.settle()
    assert wires.idle
    assert wires.secondary.guest.state == before
    assert wires.checkpoint()
    assert wires.secondary.guest.state == wires.primary.state


def test_a_promotion_ends_the_session() -> None:
    wires = pair()
    assert wires.checkpoint()
    wires.say(wires.outgoing.promote(wires.now))
    wires.settle()
    assert wires.ended
    assert wires.secondary.guest.running


def test_fencing_kills_the_secondary() -> None:
    wires = pair()
    wires.say(wires.outgoing.fence(wires.now))
    wires.settle()
    assert wires.outgoing.fenced is True
    assert not wires.secondary.guest.alive


def run_two_checkpoints(tamper: Tamper, channels: int, random: Random) -> Wires:
    """Make a checkpoint, and one more that something may happen to; check what the secondary has then."""
    armed = False

    def tamper_second(channel: int, place: int, data: bytes) -> bytes | None:
        return tamper(channel, place, data) if armed else data

    wires = pair(channels=channels, random=random, tamper=tamper_second)
    assert wires.checkpoint()
    both_write(wires)
    armed = True
    wires.places = [0] * (2 * channels)
    old, new = wires.secondary.guest.state, wires.primary.state
    wires.presend(2)
    wires.presend(3)
    committed = wires.checkpoint()
    state = wires.secondary.guest.state
    assert state in (old, new)
    assert wires.secondary.guest.running
    outgoing = wires.outgoing
    if committed:
        assert state == new
    elif not outgoing.undecided:
        assert state == old
    assert committed or outgoing.failure
    # Whatever happened, a new session makes them equal, and says which state there was.
    if not wires.idle:
        again = Wires(wires.primary, wires.secondary, session=b"t" * 16, channels=channels)
        again.open()
        assert again.idle
        assert (again.outgoing.applied_number == 2) == (state == new)
        assert again.checkpoint()
        assert wires.secondary.guest.state == wires.primary.state
    return wires


def count_messages(channels: int) -> dict[int, int]:
    counts: dict[int, int] = {}

    def count(channel: int, place: int, data: bytes) -> bytes:
        counts[channel] = place + 1
        return data

    run_two_checkpoints(count, channels, Random(0))
    return counts


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_connection_cut_at_any_message(channels: int) -> None:
    for channel, count in count_messages(channels).items():
        for place in range(count):
            wires = run_two_checkpoints(
                lambda c, p, data, at=(channel, place): None if (c, p) == at else data,  # type: ignore[misc]
                channels,
                Random(place),
            )
            assert wires.outgoing.state == AT_BROKEN or wires.idle


@pytest.mark.parametrize("channels", [1, 4])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_message_corrupted_anywhere(channels: int, data: st.DataObject) -> None:
    counts = count_messages(channels)
    channel = data.draw(st.sampled_from(sorted(counts)), label="channel")
    place = data.draw(st.integers(0, counts[channel] - 1), label="message")
    position = data.draw(st.integers(0, 1 << 16), label="byte")
    flip = data.draw(st.integers(1, 255), label="bits")
    seed = data.draw(st.integers(0, 1 << 32), label="seed")

    def corrupt(c: int, p: int, message: bytes) -> bytes:
        if (c, p) != (channel, place):
            return message
        at = position % len(message)
        return message[:at] + bytes([message[at] ^ flip]) + message[at + 1 :]

    wires = run_two_checkpoints(corrupt, channels, Random(seed))
    assert wires.outgoing.state == AT_BROKEN
    assert any(word in wires.outgoing.failure for word in ("corrupt", "version", "begins with"))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_message_lost_or_sent_twice(data: st.DataObject) -> None:
    counts = count_messages(2)
    channel = data.draw(st.sampled_from(sorted(counts)), label="channel")
    place = data.draw(st.integers(0, counts[channel] - 1), label="message")
    times = data.draw(st.sampled_from([0, 2]), label="times")
    seed = data.draw(st.integers(0, 1 << 32), label="seed")
    wires = run_two_checkpoints(
        lambda c, p, message: message * times if (c, p) == (channel, place) else message, 2, Random(seed)
    )
    assert wires.outgoing.state == AT_BROKEN or (wires.idle and channel < 0)


@settings(deadline=None, max_examples=200)
@given(steps=st.integers(0, 60), channels=st.sampled_from([1, 2, 4]), seed=st.integers(0, 1 << 32))
def test_a_crash_after_any_step(steps: int, channels: int, seed: int) -> None:
    """Either end is gone after any number of deliveries, in any order of the channels."""
    wires = pair(channels=channels, random=Random(seed))
    assert wires.checkpoint()
    both_write(wires)
    old, new = wires.secondary.guest.state, wires.primary.state
    deliver, left = wires.deliver, steps

    def deliver_until_the_crash() -> bool:
        nonlocal left
        if not left:
            wires.cut("the process is gone")
        left -= 1
        return deliver()

    wires.deliver = deliver_until_the_crash  # type: ignore[method-assign]  # the crash is in the wires
    committed = wires.checkpoint()
    assert wires.secondary.guest.state == new if committed else wires.secondary.guest.state in (old, new)
    assert wires.secondary.guest.running


@pytest.mark.parametrize("channel", [0, 1])
def test_another_version_is_named(channel: int) -> None:
    def newer(c: int, _place: int, data: bytes) -> bytes:
        return data[:4] + bytes([VERSION + 1]) + data[5:] if c == channel else data

    wires = pair(channels=2, tamper=newer)
    assert wires.outgoing.state == AT_BROKEN
    assert f"version {VERSION + 1}" in wires.outgoing.failure


def test_another_memory_is_refused() -> None:
    wires = Wires(Guest(PAGES), Secondary(Guest(PAGES + 1)))
    wires.open()
    assert "give both guests the same memory" in wires.outgoing.failure


def test_a_first_checkpoint_without_all_of_the_memory_is_refused() -> None:
    wires = pair()
    wires.backlog.take_quiet(3)  # and never sent: 0 and 1 are seen by the tracker again, 2 is not
    assert not wires.checkpoint()
    assert "all of the memory" in wires.outgoing.failure
    assert wires.secondary.guest.state == Guest(PAGES).state


def test_silence_is_found_by_both_ends() -> None:
    wires = pair()
    outgoing, incoming = wires.outgoing, wires.secondary.session
    assert incoming is not None
    wires.now = outgoing.deadline
    wires.say(outgoing.handle_timer(wires.now))
    wires.settle()  # a PING, and its PONG
    assert wires.idle
    assert incoming.deadline == wires.now + 4.0
    assert wires.now < outgoing.deadline < wires.now + 4.0
    wires.now += 4.0
    assert outgoing.handle_timer(wires.now) == []
    incoming.handle_timer(wires.now)
    assert "nothing came from the secondary's end for 4 s" in outgoing.failure
    assert "nothing came from the primary's end for 4 s" in incoming.failure
    assert outgoing.deadline == incoming.deadline == float("inf")


def test_pages_that_come_while_the_cache_is_applied_end_the_session() -> None:
    wires = pair()
    assert wires.send_checkpoint()
    assert wires.outgoing.state == AT_RECEIVED
    number = wires.outgoing.number
    wires.say(wires.outgoing.apply(wires.now))
    wires.settle()
    wires.outgoing.number = number + 1
    wires.send_pages([(3, 1)])
    wires.settle()
    assert "while the cache is being applied" in wires.outgoing.failure


def test_a_decision_after_pages_of_the_next_checkpoint_is_refused() -> None:
    wires = pair()
    before = wires.secondary.guest.state
    assert wires.send_checkpoint()
    wires.outgoing.number += 1
    wires.send_pages([(3, 1)])
    wires.outgoing.number -= 1
    wires.say(wires.outgoing.apply(wires.now))
    wires.settle()
    assert "pages of the next checkpoint" in wires.outgoing.failure
    assert wires.secondary.guest.state == before


def test_a_page_has_its_own_channel() -> None:
    wires = pair(channels=4)
    lengths = {len(queue) for queue in wires.queues}
    assert lengths == {0}
    wires.send_pages([(0, PAGES)])
    sizes = [sum(map(len, queue)) for queue in wires.queues[:4]]
    assert all(size > HEADER_LENGTH for size in sizes)
    assert sizes[0] > 3 * PAGE  # pages 0, 1, 63, and what of 256 to 299 is not zero: 299
