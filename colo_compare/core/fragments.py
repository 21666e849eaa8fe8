"""IP fragments, collected until they make a datagram (rule 3: the guests number and cut them differently)."""

from colo_compare.core.counters import S_AGED_OUT, S_OVERFLOW
from colo_compare.core.hold import Flow, Held
from colo_compare.core.ledger import Ledger
from colo_compare.wire.fragments import join_fragments
from colo_compare.wire.frame import Frame

_MAX_GROUPS = 1024  # unfinished datagrams of the secondary; of the primary, the hold limits count


class Group(Flow):
    """The fragments of one datagram so far."""

    def __init__(self, key: bytes, now: float) -> None:
        super().__init__(key, now)
        self.frames: list[Frame] = []
        self.held: list[Held] = []


class Whole:
    """A datagram that is complete, and the frames that brought it, in arrival order."""

    def __init__(self, datagram: Frame, frames: list[Frame]) -> None:
        self.datagram = datagram
        self.frame = frames[0]
        self.more = frames[1:] or None


class Reassembly:
    """Unfinished datagrams of one guest. The primary's fragments are held, as every frame of its."""

    def __init__(self, ledger: Ledger, holds: bool) -> None:
        self.ledger = ledger
        self.holds = holds
        self.groups: dict[bytes, Group] = {}

    def add(self, frame: Frame) -> "Whole | None":
        """Take a fragment; give the datagram if it is complete by it."""
        ledger = self.ledger
        name = frame.key + frame.fragment_id.to_bytes(4, "big")
        group = self.groups.get(name)
        if group is None:
            group = Group(frame.key, ledger.now)
            self.groups[name] = group
            if not self.holds and len(self.groups) > _MAX_GROUPS:
                oldest = next(iter(self.groups))
                ledger.counters.secondary[S_OVERFLOW] += len(self.groups.pop(oldest).frames)
        group.frames.append(frame)
        datagram = join_fragments(group.frames, False)
        if datagram is None:
            if self.holds:
                held = Held(group, frame, None, ledger.now)
                group.held.append(held)
                ledger.hold(held)
            return None
        del self.groups[name]
        for held in group.held:
            ledger.holds.remove(held)
        return Whole(datagram, group.frames)

    def age(self) -> None:
        """Forget what the secondary will not complete any more."""
        limit = self.ledger.now - self.ledger.settings.fragment_timeout
        for name, group in list(self.groups.items()):
            if group.last_seen > limit:
                break
            if not self.holds:
                self.ledger.counters.secondary[S_AGED_OUT] += len(group.frames)
                del self.groups[name]

    def clear(self) -> int:
        """Forget all groups (their held frames are dealt with by the caller); give the number of frames."""
        count = 0
        for group in self.groups.values():
            count += len(group.frames)
        self.groups = {}
        return count

    def frames(self) -> list[Frame]:
        """Give all fragments, in arrival order by datagram."""
        found: list[Frame] = []
        for group in self.groups.values():
            found.extend(group.frames)
        return found
