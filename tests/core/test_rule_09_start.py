"""Rule 9: protection begins with a committed checkpoint; older flows are picked up in mid-stream."""

import math

import pytest

from colo_compare.core.settings import Settings
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET, protected=False)


def test_it_starts_with_a_request_and_without_protection(play: Playbook) -> None:
    assert [(r.epoch, r.reasons, r.flow) for r in play.requests] == [(1, ("startup",), "")]
    assert (play.proxy.mode, play.proxy.epoch, play.proxy.protected) == ("protect", 0, False)
    play.pause()
    play.commit()
    assert (play.proxy.epoch, play.proxy.protected) == (1, True)


def test_before_the_first_commit_everything_is_held(play: Playbook) -> None:
    c, _, _ = play.tcp()
    play.client(c.syn(), held=True)
    _, p2, s2 = play.datagrams()
    frame = p2.datagram(b"early")
    play.primary(frame)
    play.secondary(s2.datagram(b"early"))
    play.pause()
    play.commit(releases=[frame])


def test_a_connection_in_mid_stream(play: Playbook) -> None:
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    early = p.data(b"early")
    play.primary(early)
    play.secondary(s.data(b"early"))
    play.client(c.data(b"request"), held=True)
    play.pause()
    play.commit(releases=[early])
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())


@pytest.mark.parametrize("first", ["client", "primary", "secondary"])
def test_a_connection_that_is_silent_until_after_the_commit(play: Playbook, first: str) -> None:
    c, p, s = play.tcp(client_isn=0xFFFFF000, primary_isn=0xFFFFF000)
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    assert s.isn == p.isn
    if first == "client":
        play.client(c.data(b"request"))
    if first == "secondary":
        play.secondary(s.data(b"answer"))
        answer = p.data(b"answer")
        play.primary(answer, releases=[answer])
    else:
        play.both(p.data(b"answer"), s.data(b"answer"))
    play.both(p.data(b"more"), s.data(b"more"))
    play.client(c.ack())
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])


def test_a_mid_stream_connection_fails_over(play: Playbook) -> None:
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    play.both(p.data(b"answer"), s.data(b"answer"))
    play.client(c.ack())
    mine = s.data(b"mine")
    play.secondary(mine)
    play.promote(flushes=[mine])
    play.client(c.ack(), unmirrored=True)


def test_a_window_of_unknown_scale_opens_no_further_than_the_secondarys(play: Playbook) -> None:
    """Nobody has seen the handshake, so that nobody can tell bytes from the units of a window."""
    c, p, s = play.tcp(scale=7)
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    play.client(c.data(b"x" * 200))
    play.secondary(s.ack(5200, window=400))
    ack = p.ack(5100, window=500)
    play.primary(ack, releases=[ack])
    play.secondary(s.ack(5200, window=400))
    play.secondary(s.ack(5200, window=600), updates=[c])
    assert play.offer(c) == 5100 + (500 << 7)


def test_a_reordered_start_in_mid_stream(play: Playbook) -> None:
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    one, two = p.data(b"one"), p.data(b"two")
    play.primary(two)
    play.primary(one)
    play.secondary(s.data(b"onetwo"), releases=[two, one])


def test_a_retransmission_of_what_nobody_remembers(play: Playbook) -> None:
    """What both guests had sent before the commit is the same in both, and may come once more from either."""
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    play.both(p.data(b"new"), s.data(b"new"))
    again = p.data(b"oldstuff", at=4992)
    play.primary(again, releases=ANYTHING)
    play.secondary(s.data(b"oldstuff", at=4992), releases=ANYTHING)
    assert not play.held


def test_a_datagram_flow_in_mid_stream(play: Playbook) -> None:
    play.pause()
    play.commit()
    _, p, s = play.datagrams()
    play.both(p.datagram(b"x"), s.datagram(b"x"))


def test_a_promotion_before_the_first_commit(play: Playbook) -> None:
    """Nothing is known of the secondary's numbers; it is all that is left."""
    _, p, s = play.datagrams()
    frame = p.datagram(b"early")
    play.primary(frame)
    play.promote(discards=[frame])
    mine = s.datagram(b"mine")
    play.primary(mine, releases=[mine])


def test_the_secondary_lost_before_the_first_commit(play: Playbook) -> None:
    c, p, _ = play.tcp()
    frame = p.data(b"early", at=5000, ack=5000)
    play.primary(frame)
    play.client(c.data(b"x", at=5000), held=True)
    play.lose_secondary(releases=[frame])


def test_a_first_checkpoint_that_fails_is_asked_again(play: Playbook) -> None:
    _, p, _ = play.datagrams()
    frame = p.datagram(b"early")
    play.primary(frame)
    play.fail()
    play.after(0.51, requests=["startup"])
    play.pause()
    play.commit(releases=[frame])


def test_the_first_frame_in_mid_stream_was_lost_before_the_proxy() -> None:
    """Its retransmission is new to the proxy, so it is compared with what the secondary said there."""
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    lost, two = p.data(b"one"), p.data(b"two")
    play.primary(two)
    play.secondary(s.data(b"ONEtwo"), releases=ANYTHING, requests=ANYTHING)
    play.primary(lost, releases=ANYTHING, requests=ANYTHING)
    assert lost in play.held


def test_a_stale_syn_ack_does_not_replace_a_flow_that_was_picked_up(play: Playbook) -> None:
    play.lose_secondary()
    c, p, _ = play.tcp()
    play.client(c.syn(), unmirrored=True)
    syn_ack, stale = p.syn_ack(), p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack(), unmirrored=True)
    (s,) = play.protect_again()
    hello = p.data(b"hello")
    play.primary(hello)
    play.primary(stale)
    assert play.proxy.counters.discarded["superseded"] == 0
    play.secondary(s.data(b"hello"), releases=ANYTHING)
    assert hello not in play.held
