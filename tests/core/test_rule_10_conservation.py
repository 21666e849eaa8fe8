"""Rule 10: received = released + held + discarded, by the proxy's own account, and order within a flow."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_compare.core.settings import Settings
from colo_compare.core.sides import PRIMARY
from tests.playbook import ANYTHING, Playbook


def account(play: Playbook) -> None:
    """Hold the proxy's own figures against what the playbook saw."""
    counters = play.proxy.counters
    assert counters.received[PRIMARY] == (
        counters.released_total() + play.proxy.held_frames + counters.discarded_total()
    )
    assert play.proxy.held_frames == len(play.held)


def test_a_quiet_proxy_has_an_empty_account() -> None:
    account(Playbook())


def test_the_account_of_a_conversation() -> None:
    play = Playbook(Settings(mirror_retry=math.inf, announce=False))
    _, p, s = play.connection()
    account(play)
    one = p.data(b"one")
    play.primary(one, p.data(b"two"))
    account(play)
    play.secondary(s.data(b"one"), releases=[one])
    account(play)
    left = play.held
    play.promote(discards=left)
    account(play)
    assert play.proxy.counters.discarded == {**play.proxy.counters.discarded, "failover": 1}
    assert play.proxy.counters.received_bytes[PRIMARY] > 0


def test_every_release_has_a_kind() -> None:
    play = Playbook(Settings(mirror_retry=math.inf, announce=False))
    _, p, _ = play.connection()
    released = play.proxy.counters.released
    assert released["matched"] == 1
    covered = p.data(b"covered")
    play.primary(covered)
    play.checkpoint(releases=[covered])
    assert released["covered"] == 1
    arp = p.opaque(0x0806, bytes(46))
    play.primary(arp, releases=[arp])
    assert released["not_compared"] == 1
    play.lose_secondary()
    solo = p.data(b"solo")
    play.primary(solo, releases=[solo])
    assert released["unprotected"] == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["primary", "secondary", "checkpoint", "abort", "time", "client"]),
        st.integers(0, 2),
        st.integers(1, 6),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_any_run_of_equal_guests_loses_nothing(steps: list[tuple[str, int, int]]) -> None:
    """The guests say the same in segments of their own; the playbook checks each release."""
    play = Playbook(Settings(mirror_retry=math.inf, compare_timeout=math.inf, announce=False))
    flows = [play.connection(client_port=port) for port in (1, 2, 3)]
    stream = bytes(range(256))
    for action, index, length in steps:
        c, p, s = flows[index]
        if action == "primary":
            play.primary(p.data(stream[p.nxt : p.nxt + length]), releases=ANYTHING)
        elif action == "secondary":
            play.secondary(s.data(stream[s.nxt : s.nxt + length]), releases=ANYTHING)
        elif action == "checkpoint":
            play.request(requests=["operator"])
            play.pause()
            play.commit(releases=ANYTHING, again=ANYTHING)
            assert not play.held
        elif action == "abort":
            play.request(requests=["operator"])
            play.pause()
            play.fail(releases=ANYTHING)
            play.after(0.6, requests=["operator"])
            play.pause()
            play.commit(releases=ANYTHING, again=ANYTHING)
        elif action == "time":
            play.after(length / 10)
        else:
            play.client(c.ack())
        account(play)
    for _, p, s in flows:
        missing = stream[s.nxt : p.nxt]
        if missing:
            play.secondary(s.data(missing), releases=ANYTHING)
    assert not play.held
    account(play)
