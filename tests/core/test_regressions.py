"""What has been wrong once, each as the shortest conversation that showed it."""

import dataclasses
import math

from colo_compare.core.settings import OBSERVE, Settings
from tests.playbook import Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


def test_a_time_out_in_observe_mode_gives_the_whole_flow_up() -> None:
    """It used to forget the rest of the flow's queue: each of its frames then timed out alone."""
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    for part in (b"one", b"two", b"three"):
        data = p.data(part)
        play.primary(data, releases=[data])
        play.after(0.1)
    play.after(10.0)
    assert play.proxy.counters.divergences["timeout"] == 1
    four = p.data(b"four")
    play.primary(four, releases=[four])
    play.secondary(s.data(b"onetwothree"), s.data(b"four"))
    assert play.proxy.counters.compared_bytes == 4


def test_a_checkpoint_that_copies_nothing_keeps_what_the_secondary_says_meanwhile() -> None:
    """It used to be void; the secondary then repeated it only after its retransmission time-out."""
    play = Playbook(dataclasses.replace(QUIET, copies_state=False, reports_pause=False))
    _, p, s = play.connection()
    play.request("operator", requests=["operator"])
    play.secondary(s.data(b"more"))
    play.commit()
    more = p.data(b"more")
    play.primary(more, releases=[more])
