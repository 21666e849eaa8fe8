"""A playbook: a conversation between client, proxy and guests, with every output of every step stated.

::

    play = Playbook()
    c, p, s = play.connection()
    ok = p.data(b"ok")
    play.primary(ok)                             # nothing may come out
    play.secondary(s.data(b"ok"), releases=[ok])

A step fails when anything else comes out than it states, and besides, after every step:

- each released frame is what the primary sent (only window, and after a failover the translated numbers, may
  differ), with right checksums, sequence numbers in the client's space, and no objection of the Ledger;
- each mirrored frame is what the client sent, with right checksums, and numbers that this guest knows;
- primary frames received = released + held + discarded (rule 10), what is said first in order per flow;
- timers make progress.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from colo_compare.core.actions import Actions, CheckpointRequest, Event
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import Frame, parse_frame
from tests.conversation import Clock, Conversation, Endpoint, Packet
from tests.frames import ACK, FIN, PSH, RST, SYN, Dissected, dissect
from tests.ledger import Ledger

START = 1000.0


class _Anything(list[Any]):
    """An output that a step leaves open."""


ANYTHING = _Anything()


def _agrees(found: Sequence[object], expected: Sequence[object]) -> bool:
    return expected is ANYTHING or list(found) == list(expected)


class Playbook:
    """Owns the proxy and the time."""

    def __init__(self, settings: Settings | None = None, *, protected: bool = True) -> None:
        """A protected pair, or one at its very start."""
        self.settings = settings or Settings()
        self.clock = Clock(START)
        self.ledger = Ledger()
        self.proxy = Proxy(self.settings, self.clock.now)
        self.events: list[Event] = []
        self.requests: list[CheckpointRequest] = []
        self.reports: list[Dissected] = []  # the proxy's own, to the secondary, of its lost frames
        self._conversations: list[Conversation] = []
        self._packets: dict[int, Packet] = {}
        self._arrived: list[Packet] = []  # of the primary, not yet released or discarded
        self._forgotten: set[Packet] = set()
        self._highest_tsval: dict[Conversation, int] = {}
        self._elder: set[Conversation] = set()  # carried over from a dead primary
        self._strict = self.settings.mode == "protect"
        self._solo = False
        self._alone: set[Conversation] = set()  # of before the secondary, which never gets them
        self._cut: dict[Packet, int] = {}  # held packets of which the beginning went out, and up to where
        self._offers: dict[Conversation, int] = {}
        self._lowered: dict[Packet, int] = {}  # what packets of the dead primary acknowledge
        self._copied: dict[Conversation, Endpoint] = {}
        self.kept: list[Packet] = []  # the client's, held by the proxy
        self.proxy.start(self.now)
        if self._strict:
            self._expect(requests=("startup",))
            if protected and self.settings.reports_pause:
                self.pause()
                self.commit()
            elif protected:
                self.snapshot()
                self.commit()
        else:
            self._expect()

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def held(self) -> list[Packet]:
        """What the primary sent and nobody has seen yet."""
        return list(self._arrived)

    def forget(self, packet: Packet) -> None:
        """State that nobody will ever see this primary packet, sent already or next."""
        self._arrived = [other for other in self._arrived if other is not packet]
        self._forgotten.add(packet)

    # Conversations

    def tcp(
        self, *, client_isn: int = 100, primary_isn: int = 10_000, secondary_isn: int = 50_000,
        version: int = 4, vlans: tuple[int, ...] = (), client_port: int = 40000, guest_port: int = 80,
        scale: int = 7,
        times: bool = True, header_len: int = 0, primary_clock: int = 0, secondary_clock: int = 7_000_000,
    ) -> tuple[Endpoint, Endpoint, Endpoint]:  # fmt: skip
        """Client, primary and secondary of a TCP flow in which nothing was said yet."""
        talk = Conversation(self.clock, version, vlans, client_port, guest_port, scale, times, header_len)
        talk.client.isn, talk.primary.isn, talk.secondary.isn = client_isn, primary_isn, secondary_isn
        talk.client.clock, talk.primary.clock, talk.secondary.clock = (
            3_000_000,
            primary_clock,
            secondary_clock,
        )
        talk.view_isn = primary_isn
        self._conversations.append(talk)
        return talk.client, talk.primary, talk.secondary

    def connection(
        self, *, client_isn: int = 100, primary_isn: int = 10_000, secondary_isn: int = 50_000,
        version: int = 4, vlans: tuple[int, ...] = (), client_port: int = 40000, guest_port: int = 80,
        scale: int = 7,
        times: bool = True, header_len: int = 0, primary_clock: int = 0, secondary_clock: int = 7_000_000,
        syn_window: int | None = None,
    ) -> tuple[Endpoint, Endpoint, Endpoint]:  # fmt: skip
        """The same after the client's handshake."""
        c, p, s = self.tcp(
            client_isn=client_isn, primary_isn=primary_isn, secondary_isn=secondary_isn, version=version,
            vlans=vlans, client_port=client_port, guest_port=guest_port, scale=scale, times=times,
            header_len=header_len,
            primary_clock=primary_clock, secondary_clock=secondary_clock,
        )  # fmt: skip
        self.client(c.syn())
        syn_ack = p.syn_ack(window=syn_window)
        self.primary(syn_ack)
        self.secondary(s.syn_ack(window=syn_window), releases=[syn_ack])
        self.client(c.ack())
        return c, p, s

    def datagrams(
        self, *, version: int = 4, vlans: tuple[int, ...] = (), client_port: int = 5000, guest_port: int = 53
    ) -> tuple[Endpoint, Endpoint, Endpoint]:
        """Client, primary and secondary of a flow of datagrams."""
        talk = Conversation(self.clock, version, vlans, client_port, guest_port)
        self._conversations.append(talk)
        return talk.client, talk.primary, talk.secondary

    def offer(self, client: Endpoint) -> int:
        """Where the window ends that this client was shown last (relative)."""
        return self._offers[client.conversation]

    # Frames arrive

    def client(
        self, *packets: Packet, held: bool = False, mirrors: Sequence[Packet] | None = None,
        releases: Sequence[Packet] = (), requests: Sequence[str] = (), unmirrored: bool = False,
    ) -> None:  # fmt: skip
        """The client sends; by default all of it is mirrored to both guests at once.

        `held`: none of it is. `unmirrored`: the primary alone gets it. `mirrors`: to the secondary, instead
        of all of it.
        """
        self._receive(CLIENT, packets)
        if held:
            self.kept += packets
        to_primary: Sequence[Packet] = () if held or not self.settings.mirror else packets
        to_secondary = () if unmirrored else to_primary
        self._expect(
            to_primary=to_primary,
            mirrors=to_secondary if mirrors is None else mirrors,
            releases=releases,
            requests=requests,
        )

    def primary(
        self, *packets: Packet, releases: Sequence[Packet] = (), requests: Sequence[str] = ()
    ) -> None:
        for packet in packets:
            self.ledger.primary_said(packet)
        self._arrived += [packet for packet in packets if packet not in self._forgotten]
        self._receive(PRIMARY, packets)
        self._expect(releases=releases, requests=requests)

    def secondary(
        self, *packets: Packet, releases: Sequence[Packet] = (), requests: Sequence[str] = (),
        mirrors: Sequence[Packet] = (), updates: Sequence[Endpoint] = (),
    ) -> None:  # fmt: skip
        """`updates`: clients that get an acknowledgement of the proxy's own, to open their window."""
        for packet in packets:
            self.ledger.secondary_said(packet)
        self._receive(SECONDARY, packets)
        self._expect(releases=releases, requests=requests, mirrors=mirrors, updates=updates)

    def both(self, primary: Packet, secondary: Packet) -> None:
        """Both guests say the same; the client hears it."""
        self.primary(primary)
        self.secondary(secondary, releases=[primary])

    # Time

    def after(
        self, seconds: float, *, releases: Sequence[Packet] = (), requests: Sequence[str] = (),
        mirrors: Sequence[Packet] = (), to_primary: Sequence[Packet] = (),
        parts: Sequence[tuple[Packet, int]] = (),
    ) -> None:  # fmt: skip
        """Let time pass, with each timer at its time.

        `parts`: frames of which the beginning goes out, and up to which place of the stream.
        """
        until = self.now + seconds
        rounds = 0
        while (due := self.proxy.next_timer()) <= until:
            rounds += 1
            assert rounds < 1000 + 2 * seconds, f"the timer at {due} never stops"
            self.clock.now = max(self.now, due)
            self.proxy.handle_timer(self.now)
        self.clock.now = until
        self._expect(
            releases=releases, requests=requests, mirrors=mirrors, to_primary=to_primary, parts=parts
        )

    # The checkpointer

    def request(self, reason: str = "operator", *, requests: Sequence[str] = ()) -> None:
        self.proxy.request_checkpoint(reason, self.now)
        self._expect(requests=requests)

    def begun(self) -> int:
        """The backend starts a checkpoint by itself."""
        epoch = self.proxy.begun(self.now)
        self._expect()
        return epoch

    def snapshot(self) -> None:
        """The backend copies the primary; a `commit` makes the secondary equal to what it is now."""
        self.ledger.paused({talk: talk.primary.nxt for talk in self._conversations})
        self._copied = {}
        for talk in self._conversations:
            self._copied[talk] = Endpoint(talk, "copy")
            self._copied[talk].become(talk.primary)

    def pause(self) -> None:
        self.snapshot()
        self.proxy.paused(self.proxy.epoch + 1, self.now)
        assert self.proxy.checkpoint_state == "paused"
        self._expect()

    def load(self, releases: Sequence[Packet] = ()) -> None:
        self._copy_state()
        self.proxy.loaded(self.proxy.epoch + 1, self.now)
        self._expect(releases=releases)

    def commit(
        self, *, releases: Sequence[Packet] = (), again: Sequence[Packet] = (), requests: Sequence[str] = (),
        loaded: bool = False, kept: bool = True,
    ) -> None:  # fmt: skip
        """The client's frames that were held go on to both guests.

        `again`: what is mirrored once more before them (rule 7). `loaded`: the state was copied at `load`
        already. `kept`: whether the client's frames go on, which they do not when another request follows.
        """
        if not loaded:
            self._copy_state()
        self.ledger.committed()
        epoch = self.proxy.epoch
        self.proxy.committed(epoch + 1, self.now)
        assert self.proxy.epoch == epoch + 1
        to_primary = self._take_kept() if kept else []
        mirrors = again if again is ANYTHING else [*again, *to_primary]
        self._expect(releases=releases, mirrors=mirrors, to_primary=to_primary, requests=requests)

    def becomes_solo(self) -> None:
        """State that the next step ends the protection: what it releases needs nobody's word."""
        self._solo = True

    def quiet(self) -> None:
        """State that nothing came out of what the test did to the proxy by itself."""
        self._expect()

    def checkpoint(self, reason: str = "operator", *, releases: Sequence[Packet] = ()) -> None:
        """A whole one, with nothing in between."""
        self.request(reason, requests=(reason,))
        self.pause()
        self.commit(releases=releases)

    def fail(
        self,
        detail: str = "no",
        *,
        intact: bool = True,
        releases: Sequence[Packet] = (),
        requests: Sequence[str] = (),
    ) -> None:
        """The checkpoint fails; the client's frames go on, to the secondary too if it lives."""
        self.ledger.aborted()
        self._solo = self._solo or not intact
        self.proxy.failed(self.proxy.epoch + 1, detail, intact, self.now)
        kept = self._take_kept()
        self._expect(releases=releases, mirrors=kept if intact else (), to_primary=kept, requests=requests)

    def _take_kept(self) -> list[Packet]:
        kept, self.kept = self.kept, []
        return kept

    def _copy_state(self) -> None:
        if not self.settings.copies_state:
            return
        self.ledger.loaded()
        for talk, copy in self._copied.items():
            talk.secondary.become(copy)

    # Death and life

    def lose_secondary(
        self, *, releases: Sequence[Packet] = (), updates: Sequence[Endpoint] = (), blocks: bool = False
    ) -> None:
        self._solo = not blocks
        self._alone = set()
        self.proxy.lose_secondary(self.now)
        self._expect(releases=releases, updates=updates, to_primary=self._take_kept())

    def promote(
        self, *, flushes: Sequence[Packet] = (), releases: Sequence[Packet] = (),
        discards: Sequence[Packet] = (), again: Sequence[Packet] = (), announced: bool = True,
        said: Sequence[Packet] = (), parts: Sequence[tuple[Packet, int]] = (), acked: int = 0,
    ) -> None:  # fmt: skip
        """The primary dies, and the client's frames that were held go on to its successor.

        `flushes`: the secondary's frames that go out at once. `discards`: the primary's that nobody will see.
        `releases`: the primary's that a commit covered. `again`: client frames that the successor gets again.
        `said`: the primary's that waited for an acknowledgement, whose payload the secondary has said, too;
        they acknowledge `acked`, as it does. `parts`: the same of first parts of those that are discarded.
        """
        self._solo = True
        self._alone = set()
        self.ledger.promoted()
        left = [packet for packet in self._arrived if packet not in releases and packet not in said]
        assert left == list(discards), f"held at the death: {left}"
        self._lowered = dict.fromkeys([*said, *[packet for packet, _ in parts]], acked)
        self._arrived = [*releases, *said, *[packet for packet, _ in parts], *flushes]
        for talk in self._conversations:
            talk.primary = talk.secondary
            talk.primary.name = "promoted"
            self._elder.add(talk)
        self.proxy.promote(self.now)
        assert self.proxy.mode == "solo"
        kept = self._take_kept()
        to_primary = again if again is ANYTHING else [*again, *kept]
        self._expect(
            releases=[*releases, *said, *flushes], to_primary=to_primary, announced=announced, parts=parts
        )
        self._arrived = []
        self._cut = {}

    def protect_again(self, releases: Sequence[Packet] = ()) -> list[Endpoint]:
        """A new secondary joins; it is silent before the first commit. Gives its ends, one a conversation."""
        self._solo = False
        self._alone = set() if self.settings.copies_state else set(self._conversations)
        for talk in self._conversations:
            talk.secondary = Endpoint(talk, "secondary")
        self.proxy.protect(self.now)
        self._expect(requests=("startup",))
        self.pause()
        self.commit(releases=releases)
        return [talk.secondary for talk in self._conversations]

    def set_mode(
        self, mode: str, *, releases: Sequence[Packet] = (), to_primary: Sequence[Packet] = (),
        requests: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._strict = mode == "protect"
        self._solo = self._solo and not self._strict
        self.proxy.set_mode(mode, self.now)
        assert self.proxy.mode == mode
        self._expect(releases=releases, to_primary=to_primary, requests=requests)

    def apply(self, settings: Settings, *, requests: Sequence[str] = ()) -> None:
        self.proxy.apply(settings, self.now)
        self._expect(requests=requests)

    # What came out

    def _receive(self, side: int, packets: Sequence[Packet]) -> None:
        parsed = [parse_frame(packet.data, packet.header_len, side == CLIENT) for packet in packets]
        self._packets.update((packet.tag, packet) for packet in packets)
        self.proxy.receive(side, parsed, self.now)

    def _expect(
        self, *, releases: Sequence[Packet] = (), to_primary: Sequence[Packet] = (),
        mirrors: Sequence[Packet] = (), requests: Sequence[str] = (), announced: bool = False,
        updates: Sequence[Endpoint] = (), parts: Sequence[tuple[Packet, int]] = (),
    ) -> None:  # fmt: skip
        actions = self.proxy.take_actions()
        self.events += actions.events
        self.requests += actions.requests
        said = [
            (frame, self._packet(frame)) for frame in actions.to_client if not self._is_announcement(frame)
        ]
        assert len(said) == len(actions.to_client) or announced, "announced without a promotion"
        own = [(frame, packet) for frame, packet in said if packet not in self._arrived]
        cut = [(packet, end) for frame, packet in said if (end := self._cut_at(frame, packet)) < packet.end]
        assert cut == list(parts), f"parts of frames: {cut}, not {list(parts)}"
        shortened = [packet for packet, _ in cut]
        released = [packet for _, packet in said if packet in self._arrived and packet not in shortened]
        assert [packet.maker.conversation.client for _, packet in own] == list(updates), f"own frames: {own}"
        assert _agrees(released, releases), f"released {released}, not {list(releases)}"
        primary = [self._packet(frame) for frame in actions.to_primary]
        assert _agrees(primary, to_primary), f"mirrored {primary} to the primary, not {list(to_primary)}"
        mirrored = [frame for frame in actions.to_secondary if not self._is_report(frame)]
        secondary = [self._packet(frame) for frame in mirrored]
        assert _agrees(secondary, mirrors), f"mirrored {secondary} to the secondary, not {list(mirrors)}"
        asked = [request.reasons for request in actions.requests]
        expected = [tuple(requests)] if requests else []
        assert requests is ANYTHING or asked == expected, f"requested {asked}, not {expected}"
        assert all(request.epoch == self.proxy.epoch + 1 for request in actions.requests)
        for frame, packet in said:
            seen = dissect(frame.data, frame.header_len)
            if packet in self._arrived:
                self._check_release(packet, seen)
            else:
                self._check_update(packet, seen)
        for frame in actions.to_primary:
            self._check_mirror(self._packet(frame), dissect(frame.data, frame.header_len), "primary")
        for frame in mirrored:
            self._check_mirror(self._packet(frame), dissect(frame.data, frame.header_len), "secondary")
        assert self.proxy.take_actions() == Actions(), "take_actions did not forget"

    def _packet(self, frame: Frame) -> Packet:
        """Find the packet that became this frame."""
        tag = _tag(frame)
        for packet in self._arrived:  # both guests may send the very same bytes
            if packet.tag == tag:
                return packet
        return self._packets[tag]

    def _is_announcement(self, frame: Frame) -> bool:
        """Gratuitous ARP or unsolicited neighbour advertisement of the proxy's own making."""
        seen = dissect(frame.data, frame.header_len)
        advertisement = seen.protocol == 58 and seen.payload[:1] == b"\x88"
        return (seen.ethertype == 0x0806 or advertisement) and _tag(frame) not in self._packets

    def _is_report(self, frame: Frame) -> bool:
        """Take an acknowledgement of the proxy's own making: it tells the secondary what of it was lost."""
        packet = self._packet(frame)
        if packet.maker is packet.maker.conversation.client:
            return False
        seen = dissect(frame.data, frame.header_len)
        assert (seen.flags, seen.payload, seen.problems) == (ACK, b"", []), f"a report of a hole: {seen}"
        assert 1 <= len(seen.blocks) <= 3
        self.reports.append(seen)
        return True

    def _cut_at(self, frame: Frame, packet: Packet) -> int:
        """Give the place of the stream where a frame ends that may be the beginning of a held one."""
        if packet.kind != "tcp" or packet not in self._arrived:
            return packet.end
        seen = dissect(frame.data, frame.header_len)
        return self._cut.get(packet, packet.at) + seen.span

    def _check_update(self, packet: Packet, seen: Dissected) -> None:
        """The proxy may say itself only that the client's window is open, in a copy of what was released."""
        talk = packet.maker.conversation
        assert not seen.problems, seen.problems
        assert seen.flags == ACK, f"an update of the window: {seen}"
        assert not seen.payload, f"an update of the window: {seen}"
        relative = (seen.ack - talk.client.isn) & 0xFFFFFFFF
        edge = relative + (seen.window << talk.scale)
        if not self._solo:
            assert not (why := self.ledger.objection_to_offer(talk, relative, edge)), why
        assert (seen.seq - talk.view_isn) & 0xFFFFFFFF == talk.client.rcv, (
            "an update that says where the stream is"
        )
        assert edge > self._offers[talk], "an update that opens nothing"
        self._offers[talk] = edge

    def _check_release(self, packet: Packet, seen: Dissected) -> None:
        assert packet in self._arrived, f"{packet} was released twice, or is not the primary's"
        original = packet
        talk = packet.maker.conversation
        before = self._arrived[: self._arrived.index(packet)]
        earlier = [
            other for other in before if other.maker.conversation is talk and other.kind == packet.kind
        ]
        if packet.kind == "tcp":
            # A repetition of what the client may have, and an acknowledgement alone, may overtake what waits.
            new = packet.span and packet.end > self.ledger.shown(talk)
            earlier = [other for other in earlier if new and other.span]
        if packet.kind == "fragment":
            earlier = [other for other in earlier if other.whole == packet.whole]
        if packet.kind == "opaque":
            earlier = []
        assert not earlier, f"{packet} overtook {earlier}"
        if packet.kind == "tcp":
            packet = self._take_part(packet, seen)
        else:
            self._arrived.remove(packet)
        assert not seen.problems or packet.kind == "opaque", f"{packet}: {seen.problems}"
        if packet.kind != "tcp":
            assert seen.data == packet.data, f"{packet} was changed"
            if self._strict and not self._solo:
                assert not (why := self.ledger.objection(packet, None)), f"{packet}: {why}"
            return
        sent = dissect(packet.data, packet.header_len)
        if original in self._lowered and packet.ack is not None:
            sent.ack -= packet.ack - self._lowered[original]
        if packet.payload != sent.payload:  # a part of it
            sent.payload, sent.flags = packet.payload, packet.flags
        assert seen.seq == (talk.view_isn + packet.at) & 0xFFFFFFFF, f"{packet}: sequence number"
        assert (seen.ack, seen.flags, seen.payload) == (sent.ack, sent.flags, sent.payload), packet
        assert (seen.blocks, seen.urgent, seen.vlans) == (sent.blocks, sent.urgent, sent.vlans), packet
        assert seen.window <= packet.window, f"{packet}: window {seen.window} was never offered"
        self._check_times(packet, seen, sent)
        if (
            talk not in self._elder
            and seen.window == packet.window
            and seen.times == sent.times
            and packet.tag in self._packets
            and packet is self._packets[packet.tag]
        ):
            assert seen.data == packet.data, f"{packet} was changed"
        if self._solo or not self._strict or talk in self._alone:
            assert seen.window == packet.window, f"{packet}: window {seen.window}"
        else:
            edge = self._edge(packet, seen) if packet.flags & ACK else None
            assert not (why := self.ledger.objection(packet, edge)), f"{packet}: {why}"
        self.ledger.released(packet)
        if packet.flags & ACK:
            self._offers[talk] = self._edge(packet, seen)
        talk.client.hear(packet, seen)

    def _take_part(self, packet: Packet, seen: Dissected) -> Packet:
        """Give the packet, or what is like it but only the part of its payload that goes out now."""
        start = self._cut.pop(packet, packet.at)
        if start + seen.span == packet.end:
            self._arrived.remove(packet)
            if start == packet.at:
                return packet
        else:
            self._cut[packet] = start + seen.span
        first = start - packet.at
        part = packet.payload[first : first + len(seen.payload)]
        flags = packet.flags if start + seen.span == packet.end else packet.flags & ~(PSH | FIN)
        return replace(packet, at=start, payload=part, flags=flags)

    def _edge(self, packet: Packet, seen: Dissected) -> int:
        scale = 0 if packet.flags & SYN else packet.maker.conversation.scale
        return (packet.ack or 0) + (seen.window << scale)

    def _check_times(self, packet: Packet, seen: Dissected, sent: Dissected) -> None:
        talk = packet.maker.conversation
        assert (seen.times is None) == (sent.times is None), packet
        if seen.times is None or sent.times is None:
            return
        assert seen.times[1] == sent.times[1], f"{packet}: TSecr is the client's own time"
        highest = self._highest_tsval.get(talk, seen.times[0])
        if talk not in self._elder and seen.times[0] != highest:  # what was overtaken may be made as young
            assert seen.times[0] == sent.times[0], f"{packet}: TSval"
        ahead = (seen.times[0] - highest + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        assert ahead >= 0 or talk not in self._elder, f"{packet}: TSval steps back by {-ahead}, PAWS drops it"
        assert ahead < 60_000 + (self.now - START) * 1000, f"{packet}: TSval leaps by {ahead}"
        self._highest_tsval[talk] = seen.times[0] if ahead > 0 else highest

    def _check_mirror(self, packet: Packet, seen: Dissected, to: str) -> None:
        talk = packet.maker.conversation
        guest = talk.primary if to == "primary" else talk.secondary
        assert packet.maker is talk.client, f"{packet} is not the client's"
        assert not seen.problems, f"{packet} to the {to}: {seen.problems}"
        sent = dissect(packet.data, packet.header_len)
        if packet.kind != "tcp" or not self.settings.rewrite:
            assert seen.data == packet.data, f"{packet} to the {to} was changed"
            return
        assert (seen.seq, seen.flags, seen.payload) == (sent.seq, sent.flags, sent.payload), packet
        assert (seen.window, seen.urgent, seen.vlans) == (sent.window, sent.urgent, sent.vlans), packet
        shift = guest.isn - talk.view_isn
        if packet.flags & ACK and not (packet.flags & RST and packet.ack == 0):
            assert packet.ack is not None
            known = packet.ack if self._strict else min(packet.ack, guest.nxt)  # observed: not matched yet
            expected = sent.ack + shift + known - packet.ack & 0xFFFFFFFF
            assert seen.ack == expected, f"{packet} to the {to}: ack {seen.ack}, not {expected}"
            assert seen.blocks == tuple(
                ((left + shift) & 0xFFFFFFFF, (right + shift) & 0xFFFFFFFF) for left, right in sent.blocks
            ), f"{packet} to the {to}: SACK blocks"
        assert (seen.times is None) == (sent.times is None), packet
        if seen.times is not None and sent.times is not None:
            assert seen.times[0] == sent.times[0], f"{packet}: TSval is the client's own time"
            if packet.flags & ACK and guest.syn_times and seen.times[1]:
                back = (guest.clock + int(self.now * 1000) + 60_000 - seen.times[1]) & 0xFFFFFFFF
                assert back < 120_000 + (self.now - START) * 1000, (
                    f"{packet} to the {to}: TSecr {seen.times[1]} is of another clock"
                )
                if guest.nxt == 1 and packet.at == 1:
                    first, last = guest.syn_times[0], guest.syn_times[-1]
                    assert first <= seen.times[1] <= last, (
                        f"{packet} to the {to}: TSecr {seen.times[1]} rejected"
                    )
        guest.hear(packet, seen)


def _tag(frame: Frame) -> int:
    seen = dissect(frame.data, frame.header_len)
    if seen.ethertype not in (0x0800, 0x86DD):
        return int.from_bytes(frame.data[-4:], "big")
    if seen.ethertype == 0x0800 and (seen.fragment or seen.more):
        return seen.tag << 16 | seen.fragment
    return seen.tag
