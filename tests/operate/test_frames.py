from colo_compare.core.actions import NOTHING, Actions, Divergence, Evidence
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.operate.frames import OVERHEAD, FrameRing, FrameWatch
from colo_compare.wire.frame import Frame


class Ticking:
    """A clock that shows a millisecond more each time."""

    def __init__(self) -> None:
        self.at = 0

    def __call__(self) -> int:
        self.at += 1_000_000
        return self.at


def ring(frames_of_100: int = 1000) -> FrameRing:
    return FrameRing(frames_of_100 * (100 + OVERHEAD), Ticking())


def frames(count: int) -> list[Frame]:
    return [Frame(bytes([n]) + bytes(99), 0) for n in range(count)]


def test_the_oldest_fall_out() -> None:
    kept = ring(5)
    kept.note(CLIENT, False, frames(2))
    kept.note(PRIMARY, True, frames(2))
    assert (kept.size, kept.last, kept.fallen) == (4 * (100 + OVERHEAD), 4, 0)
    kept.note(PRIMARY, False, frames(3))
    assert [(batch.side, batch.sent, len(batch.frames)) for batch in kept.since(0)] == [
        (PRIMARY, True, 2),
        (PRIMARY, False, 3),
    ]
    assert (kept.last, kept.fallen) == (7, 2)
    kept.note(PRIMARY, False, frames(6))
    assert (kept.since(0), kept.size, kept.fallen) == ([], 0, 13)


def test_since_a_frame_and_until_a_time() -> None:
    kept = ring()
    for _ in range(5):
        kept.note(CLIENT, False, frames(2))
    assert [batch.last for batch in kept.since(4)] == [6, 8, 10]
    assert [batch.last for batch in kept.since(4, until=4_000_000)] == [6, 8]
    assert kept.since(10) == []


def test_what_the_core_sends_is_taken_by_side() -> None:
    kept = ring()
    kept.note_sent(Actions())
    one, two, three = frames(3)
    actions = Actions()
    actions.to_client.append(one)
    actions.to_primary.append(two)
    actions.to_secondary.append(three)
    kept.note_sent(actions)
    assert [(batch.side, batch.frames) for batch in kept.since(0)] == [
        (PRIMARY, [two]),
        (SECONDARY, [three]),
        (CLIENT, [one]),
    ]


def test_each_frame_of_the_primary_has_its_verdict() -> None:
    kept = ring()
    released, held, other = frames(3)
    kept.note(PRIMARY, False, [released, held])
    kept.note(SECONDARY, False, [other])
    actions = Actions()
    actions.to_client.append(released)
    kept.note_sent(actions)
    for number in (7, 8):
        kept.mark(
            Divergence(
                1.0, number, 0, "tcp a - b", "payload", 40, b"", b"",
                Evidence(held.data, 1, 0.0), Evidence(other.data, 1, 0.0) if number == 7 else NOTHING,
            ),
            "timestamp",
        )  # fmt: skip
    comments = kept.comments(0)
    texts = [comments.of(batch, frame) for batch in kept.since(0) for frame in batch.frames]
    marked = "divergence {} (payload, timestamp) at offset 40 of tcp a - b"
    assert texts == [
        "released after 2.000 ms",
        f"not released as it is within this capture; {marked.format(7)}; {marked.format(8)}",
        marked.format(7),
        "",
    ]


def test_there_is_a_ring_only_while_somebody_looks() -> None:
    watch = FrameWatch()
    told: list[int] = []
    event = Divergence(1.0, 3, 0, "flow", "payload", 0, b"", b"", Evidence(b"x", 0, 0.0))
    watch.mark(event, "")  # nobody looks
    one = watch.begin()
    assert watch.begin() is one
    watch.end()
    assert watch.ring is one
    watch.wanted = lambda divergence: told.append(divergence.id)
    watch.mark(event, "")
    watch.end()
    assert told == [3]
    assert watch.begin() is not one


def test_the_ring_is_as_large_as_the_one_needs_who_needs_most() -> None:
    watch = FrameWatch()
    ring = watch.begin(1000)
    assert ring.limit == 1000
    watch.begin(5000)
    ring.note(CLIENT, False, frames(5))
    assert (ring.limit, ring.fallen) == (5000, 0)
    watch.end(5000)
    ring.note(CLIENT, False, frames(1))
    assert (ring.limit, ring.fallen) == (1000, 5)
