"""The stream comparer against a model of one byte at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.core.actions import NOTHING, Evidence
from colo_compare.core.stream import NOWHERE, Ahead, Segment, StreamComparer, same_bytes
from colo_compare.wire.frame import Frame

PRIMARY, SECONDARY = True, False
TEXT = b"The quick brown fox jumps over the lazy dog"


def offer(
    stream: StreamComparer,
    primary: bool,
    start: int,
    data: bytes,
    frame: Frame | None = None,
    seen: float = 0.0,
) -> int:
    return stream.offer(primary, start, b"##" + data + b"##", 2, 2 + len(data), frame, seen)


def segment(start: int, data: bytes) -> Segment:
    return Segment(start, start + len(data), data, 0, None, 0.0)


# Bytes


@given(st.binary(max_size=300), st.data())
def test_same_bytes_are_what_slices_say(text: bytes, data: st.DataObject) -> None:
    other = bytearray(text)
    if text and data.draw(st.booleans()):
        other[data.draw(st.integers(0, len(text) - 1))] ^= 1
    i, j = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 9))
    length = data.draw(st.integers(0, len(text) - i))
    b = bytes(j) + bytes(other[i:]) + bytes(data.draw(st.integers(0, 9)))
    assert same_bytes(text, i, b, j, length) == (text[i : i + length] == b[j : j + length])


@pytest.mark.parametrize("length", [1, 7, 8, 9, 60, 128, 129, 8191, 8192, 65_000])
@pytest.mark.parametrize("behind", [b"", b"!"])
def test_bytes_are_the_same_or_not_whatever_lies_round_them(length: int, behind: bytes) -> None:
    said = bytes(range(251)) * 260
    ours, theirs = b"some" + said[:length] + behind, b"header" + said[:length] + b"?"
    assert same_bytes(ours, 4, theirs, 6, length)
    for at in {0, length // 2, length - 1}:
        wrong = bytearray(theirs)
        wrong[6 + at] ^= 1
        assert not same_bytes(ours, 4, bytes(wrong), 6, length)


# What one side has said


def said(ahead: Ahead) -> list[tuple[int, bytes]]:
    return [(s.start, s.data[s.at : s.at + s.end - s.start]) for s in ahead.segments()]


def test_segments_find_their_places() -> None:
    ahead = Ahead()
    for start, data in ((10, b"ab"), (20, b"cd"), (4, b"ef"), (12, b"gh")):
        ahead.add(segment(start, data))
    assert said(ahead) == [(4, b"ef"), (10, b"ab"), (12, b"gh"), (20, b"cd")]
    assert ahead.bytes == 8


def test_overlaps_keep_what_was_said_first() -> None:
    ahead = Ahead()
    ahead.add(segment(10, b"cd"))
    ahead.add(segment(14, b"gh"))
    ahead.add(segment(8, b"abcdefghij"))
    assert b"".join(data for _, data in said(ahead)) == b"abcdefghij"
    assert (ahead.bytes, ahead.contradiction) == (10, NOWHERE)


def test_a_repetition_inside_adds_nothing() -> None:
    ahead = Ahead()
    ahead.add(segment(10, b"abcdef"))
    ahead.add(segment(12, b"cd"))
    assert (said(ahead), ahead.bytes) == ([(10, b"abcdef")], 6)


def test_a_contradiction_is_noted_where_the_overlap_begins() -> None:
    ahead = Ahead()
    ahead.add(segment(10, b"abcdef"))
    ahead.add(segment(13, b"dXf"))
    ahead.add(segment(10, b"Y"))
    assert ahead.contradiction == 13


def test_trimming() -> None:
    ahead = Ahead()
    ahead.add(segment(10, b"abcd"))
    ahead.add(segment(14, b"efgh"))
    ahead.trim(15)
    assert (said(ahead), ahead.bytes) == ([(15, b"fgh")], 3)
    ahead.trim(15)
    assert ahead.bytes == 3


def test_covering() -> None:
    ahead = Ahead()
    ahead.add(segment(10, b"abcd"))
    ahead.add(segment(14, b"efgh"))
    ahead.add(segment(30, b"xy"))
    assert ahead.covers(10, 18)
    assert ahead.covers(12, 13)
    assert ahead.covers(15, 17)
    assert not ahead.covers(9, 12)
    assert not ahead.covers(10, 19)
    assert not ahead.covers(30, 33)


def test_the_frames_behind_the_segments_come_once_each() -> None:
    one, two = Frame(b"1", 0), Frame(b"2", 0)
    ahead = Ahead()
    ahead.add(Segment(10, 12, b"ab", 0, one, 0.0))
    ahead.add(Segment(8, 16, b"xxabxxxx", 0, two, 0.0))
    ahead.add(Segment(20, 22, b"zz", 0, None, 0.0))
    assert [id(frame) for frame in ahead.frames()] == [id(two), id(one)]


# Two streams


@given(
    cuts=st.lists(st.tuples(st.booleans(), st.integers(0, len(TEXT) - 1), st.integers(1, 12)), max_size=60)
)
def test_equal_streams_match_as_far_as_both_have_come(cuts: list[tuple[bool, int, int]]) -> None:
    stream = StreamComparer(100)
    have: dict[bool, set[int]] = {PRIMARY: set(), SECONDARY: set()}
    total = 0
    for side, start, length in cuts:
        data = TEXT[start : start + length]
        have[side] |= set(range(start, start + len(data)))
        total += offer(stream, side, 100 + start, data)
        both = 0
        while both in have[PRIMARY] and both in have[SECONDARY]:
            both += 1
        assert stream.matched == 100 + both
        assert total == both
        assert stream.mismatch == NOWHERE
        reach = both
        while reach in have[SECONDARY]:
            reach += 1
        for end in range(len(TEXT)):
            assert stream.agrees(100 + end) == (end <= reach)


@given(
    cuts=st.lists(st.tuples(st.booleans(), st.integers(0, len(TEXT) - 1), st.integers(1, 12)), max_size=60),
    wrong=st.integers(0, len(TEXT) - 1),
)
def test_a_difference_is_never_matched(cuts: list[tuple[bool, int, int]], wrong: int) -> None:
    other = TEXT[:wrong] + b"\0" + TEXT[wrong + 1 :]
    stream = StreamComparer(100)
    for side, start, length in cuts:
        offer(stream, side, 100 + start, (TEXT if side else other)[start : start + length])
        assert stream.matched <= 100 + wrong
        assert stream.mismatch in (NOWHERE, 100 + wrong)
        assert not stream.agrees(100 + wrong + 1) or not _primary_knows(stream, 100 + wrong)


def _primary_knows(stream: StreamComparer, position: int) -> bool:
    return stream.primary is not None and stream.primary.covers(position, position + 1)


def test_what_lies_below_is_not_looked_at_again() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 100, b"abc")
    assert offer(stream, SECONDARY, 100, b"abc") == 3
    assert offer(stream, PRIMARY, 100, b"XYZ") == 0
    assert offer(stream, PRIMARY, 102, b"?de") == 0
    assert offer(stream, SECONDARY, 103, b"de") == 2
    assert stream.mismatch == NOWHERE


def test_a_guest_that_contradicts_itself_differs() -> None:
    stream = StreamComparer(100)
    offer(stream, SECONDARY, 104, b"efgh")
    offer(stream, SECONDARY, 106, b"XX")
    assert stream.mismatch == 106
    assert offer(stream, PRIMARY, 100, b"abcd") == 0


def test_a_difference_behind_a_hole_of_the_primary() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 104, b"eXgh")
    offer(stream, SECONDARY, 100, b"abcdefgh")
    assert (stream.matched, stream.mismatch) == (100, 105)
    assert not stream.agrees(104)


def test_a_hole_of_the_secondary_hides_what_is_behind_it() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 104, b"XXXX")
    offer(stream, SECONDARY, 102, b"cdefgh")
    assert stream.mismatch == NOWHERE
    assert not stream.agrees(106)


def test_nothing_said_agrees_with_what_is_matched_only() -> None:
    stream = StreamComparer(100)
    assert stream.agrees(100)
    assert not stream.agrees(101)


def test_excerpts_begin_where_the_streams_differ() -> None:
    stream = StreamComparer(100)
    assert stream.excerpt(PRIMARY) == b""
    offer(stream, PRIMARY, 100, b"abcd")
    offer(stream, PRIMARY, 104, b"efgh" * 30)
    offer(stream, SECONDARY, 100, b"abXd")
    offer(stream, SECONDARY, 110, b"later")
    assert stream.excerpt(PRIMARY) == b"cd" + (b"efgh" * 30)[:62]
    assert stream.excerpt(SECONDARY) == b"Xd"
    assert stream.evidence(PRIMARY) == Evidence(b"##abcd##", 4, 0.0)
    assert stream.evidence(SECONDARY) == Evidence(b"##abXd##", 4, 0.0)


def test_an_excerpt_without_a_difference_begins_where_nothing_is_matched() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 100, b"more")
    assert stream.excerpt(PRIMARY, 3) == b"mor"
    assert stream.excerpt(SECONDARY) == b""
    assert stream.evidence(PRIMARY) == Evidence(b"##more##", 2, 0.0)
    assert stream.evidence(SECONDARY) == NOTHING
    stream.skip_to(200)
    offer(stream, PRIMARY, 210, b"behind a hole")
    assert stream.evidence(PRIMARY) == NOTHING


def test_skipping_forgets_a_difference_and_what_lies_below() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 100, b"abcd")
    offer(stream, SECONDARY, 100, b"aXcdef")
    assert stream.mismatch == 101
    stream.skip_to(104)
    assert (stream.matched, stream.mismatch) == (104, NOWHERE)
    assert offer(stream, PRIMARY, 104, b"ef") == 2
    stream.skip_to(50)
    assert stream.matched == 106


def test_forgetting_the_secondary() -> None:
    stream = StreamComparer(100)
    assert stream.forget_secondary() == 0
    offer(stream, SECONDARY, 100, b"abcd", Frame(b"1", 0))
    offer(stream, SECONDARY, 104, b"efgh", Frame(b"2", 0))
    assert stream.forget_secondary() == 2
    offer(stream, PRIMARY, 100, b"XXXXXXXX")
    assert stream.mismatch == NOWHERE


# A stream that begins lower than was thought


def test_starting_again_below_keeps_what_was_matched() -> None:
    stream = StreamComparer(104)
    offer(stream, PRIMARY, 104, b"efgh")
    offer(stream, SECONDARY, 104, b"efgh")
    assert stream.matched == 108
    stream.start_again(100, 104)
    assert stream.matched == 100
    offer(stream, PRIMARY, 100, b"abcd")
    assert offer(stream, SECONDARY, 100, b"ab") == 2
    assert offer(stream, SECONDARY, 102, b"cd") == 6
    assert stream.matched == 108


def test_starting_again_twice_keeps_the_first_island() -> None:
    stream = StreamComparer(104)
    offer(stream, PRIMARY, 104, b"efgh")
    offer(stream, SECONDARY, 104, b"efgh")
    stream.start_again(102, 104)
    stream.start_again(100, 102)
    offer(stream, PRIMARY, 100, b"abcd")
    offer(stream, SECONDARY, 100, b"abcd")
    assert stream.matched == 108


def test_starting_again_where_nothing_was_matched() -> None:
    stream = StreamComparer(104)
    stream.start_again(100, 104)
    assert (stream.matched, stream.island) == (100, None)


def test_a_difference_below_the_island() -> None:
    stream = StreamComparer(104)
    offer(stream, PRIMARY, 104, b"ef")
    offer(stream, SECONDARY, 104, b"ef")
    stream.start_again(100, 104)
    offer(stream, PRIMARY, 100, b"abcd")
    offer(stream, SECONDARY, 100, b"abXd")
    assert (stream.matched, stream.mismatch) == (100, 102)


def test_skipping_to_below_the_island_leaves_it() -> None:
    stream = StreamComparer(104)
    offer(stream, PRIMARY, 104, b"ef")
    offer(stream, SECONDARY, 104, b"ef")
    stream.start_again(100, 104)
    stream.skip_to(102)
    assert stream.matched == 102
    stream.skip_to(104)
    assert stream.matched == 106


def test_what_both_said_ahead_matches_when_the_hole_is_filled() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 100, b"ab")
    offer(stream, SECONDARY, 104, b"ef")
    assert offer(stream, SECONDARY, 106, b"gh") == 0
    assert offer(stream, SECONDARY, 100, b"abcd") == 2
    assert offer(stream, PRIMARY, 102, b"cdefgh") == 6


def test_a_difference_found_when_a_hole_is_filled_ends_the_comparison() -> None:
    stream = StreamComparer(100)
    offer(stream, PRIMARY, 100, b"aX")
    offer(stream, PRIMARY, 102, b"cd")
    offer(stream, SECONDARY, 102, b"cd")
    assert offer(stream, SECONDARY, 100, b"ab") == 0
    assert stream.mismatch == 101


def test_who_goes_on_where_both_agree() -> None:
    stream = StreamComparer(0)
    assert not stream.goes_on(True)
    stream.offer(True, 2, b"later", 0, 5, None, 1.0)
    assert not stream.goes_on(True)
    stream.offer(True, 0, b"no", 0, 2, None, 1.0)
    assert stream.goes_on(True)
    assert not stream.goes_on(False)


@pytest.mark.parametrize(
    ("pieces", "last_run"),
    [
        ([(5, 9)], 5),
        ([(5, 9), (9, 12)], 5),
        ([(5, 9), (10, 12)], 10),
        ([(5, 9), (2, 5)], 2),
        ([(5, 9), (2, 4)], 5),
        ([(5, 9), (12, 15), (2, 5)], 12),
        ([(5, 9), (12, 15), (9, 12)], 5),
        ([(5, 9), (12, 15), (8, 11)], 12),
    ],
)
def test_where_the_last_run_without_a_hole_begins(pieces: list[tuple[int, int]], last_run: int) -> None:
    ahead = Ahead()
    for start, end in pieces:
        ahead.add(Segment(start, end, bytes(16), start, None, 1.0))
    assert ahead.last_run == last_run
