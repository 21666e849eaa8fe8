"""What of the secondary's output was lost on its way here is told to it, as a receiver would."""

import pytest

from colo_compare.core.settings import OBSERVE, Settings
from tests.conversation import DEFAULT_WINDOW, Endpoint
from tests.frames import ACK
from tests.playbook import ANYTHING, Playbook

TEXT = bytes(range(250))


def blocks(play: Playbook, guest: Endpoint) -> list[list[tuple[int, int]]]:
    """The blocks of all reports, relative to the guest's first byte."""
    first = guest.isn + 1
    return [
        [((left - first) & 0xFFFFFFFF, (right - first) & 0xFFFFFFFF) for left, right in report.blocks]
        for report in play.reports
    ]


def test_a_frame_behind_a_hole_is_answered_with_what_has_arrived() -> None:
    play = Playbook()
    _, p, s = play.connection()
    answer = p.data(TEXT)
    play.primary(answer)
    lost = s.data(TEXT[:50])
    play.secondary(s.data(TEXT[50:100]))
    play.secondary(s.data(TEXT[100:150]))
    assert blocks(play, s) == [[(50, 100)], [(50, 150)]]
    report = play.reports[-1]
    assert report.ack == (s.isn + 1) & 0xFFFFFFFF  # nothing that the client has not acknowledged
    assert report.flags == ACK
    assert report.window == DEFAULT_WINDOW
    play.secondary(lost)
    play.secondary(s.data(TEXT[150:]), releases=[answer])
    assert len(play.reports) == 2


def test_it_has_the_clients_newest_timestamp_and_the_guests_own() -> None:
    play = Playbook()
    c, p, s = play.connection()
    play.primary(p.data(TEXT))
    s.data(TEXT[:50])
    behind = s.data(TEXT[50:])
    play.after(1.0)
    question = c.data(b"and?")
    play.client(question)
    play.secondary(behind)
    assert question.tsval is not None
    assert behind.tsval is not None
    assert play.reports[-1].times == (question.tsval, behind.tsval)


def test_the_newest_block_comes_first_and_the_first_one_then() -> None:
    play = Playbook()
    _, p, s = play.connection()
    play.primary(p.data(TEXT))
    pieces = [s.data(TEXT[at : at + 10]) for at in range(0, 250, 10)]
    for index in (1, 2, 4, 6, 7):
        play.secondary(pieces[index])
    assert blocks(play, s)[-1] == [(60, 80), (10, 30)]


def test_a_long_block_at_the_front_is_not_looked_at_to_its_end() -> None:
    play = Playbook()
    _, p, s = play.connection()
    play.primary(p.data(TEXT))
    pieces = [s.data(TEXT[at : at + 2]) for at in range(0, 250, 2)]
    play.secondary(*pieces[1:100])
    play.secondary(pieces[110])
    assert blocks(play, s)[-1] == [(220, 222), (2, 2 + 65 * 2)]


def test_the_clients_acknowledgement_brings_it_up() -> None:
    """Before, the client may have what it has not acknowledged: the hole may be one of its own."""
    play = Playbook()
    c, p, s = play.connection()
    first, rest = p.data(TEXT[:50]), p.data(TEXT[50:])
    play.primary(first, rest)
    play.secondary(s.data(TEXT[:50]), releases=[first])
    s.data(TEXT[50:100])
    play.secondary(s.data(TEXT[100:150]))
    assert not play.reports
    play.client(c.ack())
    assert blocks(play, s) == [[(100, 150)]]
    assert play.reports[0].ack == (s.isn + 51) & 0xFFFFFFFF
    assert play.proxy.counters.holes_reported == 1


@pytest.mark.parametrize("settings", [Settings(mode=OBSERVE), Settings(mirror=False)])
def test_where_the_client_is_not_held_back_or_not_mirrored(settings: Settings) -> None:
    play = Playbook(settings)
    c, p, s = play.tcp()
    play.client(c.syn(), mirrors=ANYTHING)
    play.primary(p.syn_ack(), releases=ANYTHING)
    play.secondary(s.syn_ack(), releases=ANYTHING)
    play.client(c.ack(), mirrors=ANYTHING)
    s.data(TEXT[:50])
    play.secondary(s.data(TEXT[50:]))
    assert not play.reports


def test_not_while_a_checkpoint_is_under_way() -> None:
    play = Playbook()
    _, p, s = play.connection()
    play.primary(p.data(TEXT))
    s.data(TEXT[:50])
    play.request(requests=["operator"])
    play.secondary(s.data(TEXT[50:]))
    assert not play.reports
