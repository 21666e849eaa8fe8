"""UDP, ICMP, other IP and what claims to be IP and is not: matched as whole datagrams (rule 3).

A datagram matches an equal one of the same flow, in whatever order the two guests sent them. Two that differ
look like two that are merely reordered, so a difference counts only after both sides have had an unmatched
datagram for longer than `datagram_window`.
"""

import math
from collections import deque
from typing import Final

from colo_compare.core.actions import Evidence
from colo_compare.core.counters import (
    MATCHED,
    OBSERVED,
    PAYLOAD,
    S_AGED_OUT,
    S_OVERFLOW,
    TABLE_FULL,
    UNPROTECTED,
)
from colo_compare.core.hold import Flow, Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import OBSERVE
from colo_compare.wire.datagram import comparable
from colo_compare.wire.frame import Frame

_ROOM_TRIES: Final = 64  # flows looked at for one in which nothing waits


class Said:
    """A frame of the secondary that has at least one datagram which the primary has not sent."""

    frame: Frame
    more: "list[Frame] | None"  # the other fragments
    at: float
    parts: int  # datagrams still unmatched

    def __init__(self, frame: Frame, more: "list[Frame] | None", at: float, parts: int) -> None:
        self.frame = frame
        self.more = more
        self.at = at
        self.parts = parts

    def frames(self) -> list[Frame]:
        """Give the frames as they came."""
        return [self.frame] if self.more is None else [self.frame, *self.more]


class DatagramFlow(Flow):
    """One flow of datagrams: what each side has said alone, by contents."""

    def __init__(self, key: bytes, now: float) -> None:
        super().__init__(key, now)
        self.queue: deque[Held] = deque()  # primary frames that wait, in arrival order
        self.primary: dict[bytes, deque[Held]] = {}
        self.secondary: dict[bytes, deque[Said]] = {}
        self.said: deque[Said] = deque()  # the secondary's, in arrival order; done entries have no parts left
        self.bytes = 0  # that the secondary has said alone

    def oldest_said(self) -> "Said | None":
        """Give the secondary's oldest frame with an unmatched datagram."""
        said = self.said
        while said and said[0].parts == 0:
            said.popleft()
        return said[0] if said else None

    def oldest_unmatched(self) -> "Held | None":
        """Give the primary's oldest frame with an unmatched datagram."""
        for held in self.queue:
            if held.missing:
                return held
        return None

    def unmatched(self) -> int:
        """Give the number of the secondary's frames with an unmatched datagram."""
        count = 0
        for said in self.said:
            if said.parts:
                count += 1 if said.more is None else 1 + len(said.more)
        return count

    def forget_secondary(self) -> int:
        """Drop what the secondary has said alone; give the number of frames."""
        count = self.unmatched()
        self.said.clear()
        self.secondary.clear()
        self.bytes = 0
        return count


class DatagramComparer:
    """All flows of datagrams."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.flows: dict[bytes, DatagramFlow] = {}
        self.ahead: dict[DatagramFlow, None] = {}  # flows in which the secondary has said something alone
        self.check_due = math.inf  # when a difference may have to be called one, or earlier

    def _flow(self, key: bytes) -> DatagramFlow:
        flow = self.flows.get(key)
        if flow is None:
            if len(self.flows) >= self.ledger.settings.max_flows:
                self._make_room()
            flow = DatagramFlow(key, self.ledger.now)
            self.flows[key] = flow
            self.ledger.counters.flows_opened += 1
        flow.last_seen = self.ledger.now
        return flow

    def _make_room(self) -> None:
        """Forget the oldest flow in which nothing waits; where something does, the table grows."""
        for _ in range(_ROOM_TRIES):
            key = next(iter(self.flows))
            flow = self.flows.pop(key)
            if not flow.queue and flow.oldest_said() is None:
                self.ahead.pop(flow, None)
                self.ledger.counters.flows_evicted += 1
                return
            self.flows[key] = flow
        self.ledger.want_checkpoint(TABLE_FULL, "")

    def from_primary(self, whole: Frame, frame: Frame, more: "list[Frame] | None", passed: bool) -> None:
        """Take a datagram of the primary. `whole` is what counts; `frame` and `more` are what goes out.

        `passed`: they have gone out already (observe mode).
        """
        ledger = self.ledger
        if not ledger.has_secondary() and not ledger.holding():
            self._send(frame, more, UNPROTECTED)
            return
        flow = self._flow(whole.key)
        held = Held(flow, frame, more, ledger.now)
        for part in comparable(whole):
            waiting = flow.secondary.get(part)
            if waiting is None:
                same = flow.primary.get(part)
                if same is None:
                    flow.primary[part] = deque([held])
                else:
                    same.append(held)
                held.missing += 1
            else:
                self._use(flow, part, waiting)
        if ledger.mode == OBSERVE:
            if not passed:
                self._send(frame, more, OBSERVED)
            if not held.missing:
                return
            held.passed = True
        elif not held.missing and not flow.queue and self._open(flow):
            self._send(frame, more, MATCHED)
            return
        flow.queue.append(held)
        ledger.hold(held)
        if held.missing and flow.secondary:
            self._watch()

    def _send(self, frame: Frame, more: "list[Frame] | None", kind: str) -> None:
        self.ledger.send_client(frame, kind)
        if more is not None:
            for fragment in more:
                self.ledger.send_client(fragment, kind)

    def _use(self, flow: DatagramFlow, part: bytes, waiting: deque[Said]) -> None:
        said = waiting.popleft()
        said.parts -= 1
        flow.bytes -= len(part)
        self.ledger.counters.compared_bytes += len(part)
        if not waiting:
            del flow.secondary[part]

    def from_secondary(self, whole: Frame, frame: Frame, more: "list[Frame] | None") -> None:
        """Take a datagram of the secondary."""
        ledger = self.ledger
        flow = self._flow(whole.key)
        said = Said(frame, more, ledger.now, 0)
        for part in comparable(whole):
            same = flow.primary.get(part)
            if same is not None:
                same.popleft().missing -= 1
                ledger.counters.compared_bytes += len(part)
                if not same:
                    del flow.primary[part]
            elif flow.bytes < ledger.settings.max_flow_bytes:
                waiting = flow.secondary.get(part)
                if waiting is None:
                    flow.secondary[part] = deque([said])
                else:
                    waiting.append(said)
                said.parts += 1
                flow.bytes += len(part)
            else:
                ledger.counters.secondary[S_OVERFLOW] += 1
        if said.parts:
            flow.said.append(said)
            self.ahead[flow] = None
            if flow.primary:
                self._watch()
        self._pump(flow)

    def _open(self, flow: DatagramFlow) -> bool:
        return not flow.blocked and (self.ledger.protected or self.ledger.mode == OBSERVE)

    def _pump(self, flow: DatagramFlow) -> None:
        queue = flow.queue
        if not self._open(flow):
            return
        while queue and (queue[0].done or queue[0].missing == 0):
            held = queue.popleft()
            if not held.done:
                self.ledger.released(held, held.frame, MATCHED)

    # Time

    def _watch(self) -> None:
        """Note that both sides of a flow have something unmatched, the later of them from now on."""
        due = self.ledger.now + self.ledger.settings.datagram_window
        if due < self.check_due:
            self.check_due = due

    def _differs_at(self, said: Said, held: Held) -> float:
        return max(said.at, held.at) + self.ledger.settings.datagram_window

    def check(self) -> None:
        """Call differences what they are, and forget what the secondary said too long ago."""
        now = self.ledger.now
        self.check_due = math.inf
        for flow in list(self.ahead):
            said = flow.oldest_said()
            held = flow.oldest_unmatched()
            if not flow.blocked and said is not None and held is not None:
                due = self._differs_at(said, held)
                if due <= now:
                    self._diverge(flow, said, held)
                elif due < self.check_due:
                    self.check_due = due
            self._age_out(flow, now)
            if flow.oldest_said() is None:
                del self.ahead[flow]

    def _diverge(self, flow: DatagramFlow, said: Said, held: Held) -> None:
        ours = held.frame.data[held.frame.payload : held.frame.end]
        theirs = said.frame.data[said.frame.payload : said.frame.end]
        offset = 0
        while offset < len(ours) and offset < len(theirs) and ours[offset] == theirs[offset]:
            offset += 1
        flow.blocked = True
        self.ledger.diverged(
            flow.key,
            PAYLOAD,
            offset,
            ours[offset : offset + 64],
            theirs[offset : offset + 64],
            Evidence(held.frame.data, held.frame.payload + offset, held.at),
            Evidence(said.frame.data, said.frame.payload + offset, said.at),
        )
        if self.ledger.mode == OBSERVE:
            self.realign_flow(flow)

    def _age_out(self, flow: DatagramFlow, now: float) -> None:
        limit = now - self.ledger.settings.compare_timeout
        said = flow.oldest_said()
        if flow.blocked or said is None or said.at > limit:
            return
        for part, waiting in list(flow.secondary.items()):
            while waiting and waiting[0].at <= limit:
                old = waiting.popleft()
                old.parts -= 1
                flow.bytes -= len(part)
                if old.parts == 0:
                    self.ledger.counters.secondary[S_AGED_OUT] += len(old.frames())
            if not waiting:
                del flow.secondary[part]

    def age(self) -> None:
        """Forget flows that nobody has used for a while."""
        limit = self.ledger.now - self.ledger.settings.datagram_idle_timeout
        idle = [
            flow
            for flow in self.flows.values()
            if flow.last_seen <= limit and not flow.queue and not flow.said
        ]
        for flow in idle:
            del self.flows[flow.key]
            self.ledger.counters.flows_evicted += 1

    # What happens to all flows

    def let_go(self, flow: DatagramFlow, held: Held, kind: str) -> None:
        """Release a held frame uncompared."""
        flow.queue = deque()
        flow.primary.clear()
        flow.blocked = False
        self.ledger.released(held, held.frame, kind)

    def void_secondary(self) -> int:
        """Make void what the secondary had said alone; give the number of frames."""
        void = 0
        for flow in self.ahead:
            void += flow.forget_secondary()
            flow.blocked = False
        self.ahead = {}
        return void

    def realign_flow(self, flow: DatagramFlow) -> None:
        """Give up what is unmatched on both sides."""
        while flow.queue:
            held = flow.queue.popleft()
            if not held.done:
                self.ledger.released(held, held.frame, OBSERVED)
        flow.primary.clear()
        flow.forget_secondary()
        flow.blocked = False

    def promote(self) -> list[Frame]:
        """Let the secondary be the primary; give its frames that nobody has seen, by flow in order."""
        flushed: list[Frame] = []
        for flow in self.flows.values():
            for said in flow.said:
                if said.parts:
                    flushed.extend(said.frames())
            flow.queue.clear()  # what waits refers to the flow
            flow.primary.clear()
        self.flows = {}
        self.ahead = {}
        return flushed

    def lose_secondary(self) -> None:
        """Forget everything about the secondary."""
        for flow in self.flows.values():
            flow.forget_secondary()
            flow.blocked = False
        self.ahead = {}
