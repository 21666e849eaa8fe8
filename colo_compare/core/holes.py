"""Telling the secondary which of its segments never arrived here.

What the secondary says ends at the proxy, so nobody else can tell it of a frame that was lost on the way (a
full queue of a tap is enough). The client cannot: it gets nothing from behind the hole before the secondary
has said what lies in it. Left alone, the secondary repeats it after its retransmission time-out, and all that
the primary says meanwhile is held: 200 ms for each loss, and more for a burst of them. So the proxy does what
a receiver does, and answers what lies behind the hole with SACK blocks (RFC 2018).

To release the frames behind the hole, which rule 1 allows, and to leave the telling to the client, was the
other way: the client's acknowledgements would slow the primary down, too, and have it repeat what is held.
"""

from typing import Final

from mypy_extensions import i64

from colo_compare.core.epochs import COMPARING
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import PROTECT
from colo_compare.core.stream import NOWHERE, Ahead
from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.wire.rewrite import selective_ack
from colo_compare.wire.seq import wrap

_SCANNED: Final = 64  # segments looked at for a block in the middle: each frame behind a hole costs a report


def report_hole(ledger: Ledger, flow: TcpFlow) -> None:
    """Tell the secondary of a hole in what it says, if there is one and the client waits right before it.

    To be called for each of its frames, and for each of the client's: a receiver, too, answers each, and the
    repetition of a large hole is clocked by the answers. What the client has got and not acknowledged
    yet must not be reported as arrived: the client's next acknowledgement may end in the midst of it, and a
    sender takes that for a receiver that has thrown away what lies behind (RFC 2018, section 8).
    """
    stream = flow.stream
    ahead = stream.secondary
    acked = flow.client_ack
    if ahead is None or ahead.first is None or ahead.last is None or acked == NOWHERE:
        return
    frame = ahead.last.frame
    if frame is None or acked != stream.matched or ahead.first.start == acked or not ledger.settings.mirror:
        return
    if flow.guessed or flow.blocked or ledger.mode != PROTECT or ledger.epochs.state != COMPARING:
        return  # its numbers are a guess, or about to change
    offset = flow.secondary.seq_offset
    blocks: list[tuple[int, int]] = [
        (wrap(start - offset), wrap(end - offset)) for start, end in _blocks(ahead)
    ]
    ack = wrap(acked - offset)
    ledger.counters.holes_reported += 1
    ledger.send_secondary(selective_ack(frame, ack, flow.client_window, flow.client_tsval, blocks))


def _blocks(ahead: Ahead) -> list[tuple[i64, i64]]:
    """Give the last block that has arrived, then the first, if it is another.

    As a rule the last one grew just now, and RFC 2018 (section 4) wants the newest first.
    """
    segment = ahead.first
    last = ahead.last
    assert segment is not None
    assert last is not None
    start = segment.start
    end = segment.end
    blocks = [(ahead.last_run if ahead.last_run > start else start, last.end)]
    if start >= ahead.last_run:
        return blocks
    scanned = 0
    while scanned < _SCANNED:
        segment = segment.next
        assert segment is not None  # the last run lies behind
        scanned += 1
        if segment.start > end:
            break
        end = segment.end
    blocks.append((start, end))
    return blocks
