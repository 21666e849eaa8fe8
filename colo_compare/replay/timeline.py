"""Captures of two guests made one sequence of frames, as the proxy would have received them.

A capture at a guest's interface holds both directions. Which frames the guest itself sent is told by their
source address, and which address that is by the first of these rules that gives exactly one:

1. it was named (``--guest-mac``);
2. there is only one source of IP frames in each capture;
3. the two captures disagree about its initial sequence numbers: the two guests are two machines, whereas the
   client behind the mirror is one;
4. it alone sent SYN-ACKs.

The clocks of the two captures are made one by the first frame that stands in both (an answer of the guests
counts, too: its connection is the same, its sequence numbers need not be).
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.errors import CaptureError
from colo_compare.replay.recording import (
    Opening,
    Recording,
    destination_mac,
    is_group,
    mac_text,
    source_mac,
)

START: Final = "start"
CLOCK: Final = "clock"
ALIGNMENTS: Final = (START, CLOCK)


@dataclass(frozen=True)
class Guests:
    """The guests' addresses (mostly one), and how they were found."""

    macs: frozenset[bytes]
    why: str

    def sent(self, data: bytes) -> bool:
        """Say whether a guest sent this Ethernet frame."""
        return source_mac(data) in self.macs

    def get(self, data: bytes) -> bool:
        """Say whether a guest receives this Ethernet frame."""
        destination = destination_mac(data)
        return destination in self.macs or is_group(destination)

    def __str__(self) -> str:
        return ", ".join(sorted(map(mac_text, self.macs)))


def find_guests(primary: Recording, secondary: Recording, given: bytes | None) -> Guests:
    """Find the guests' addresses. Raises CaptureError where that would be a guess."""
    if given is not None:
        for recording in (primary, secondary):
            if given not in recording.sources:
                raise CaptureError(
                    f"{recording.path}: no IP frames from {mac_text(given)}; it has {_sources(recording)}"
                )
        return Guests(frozenset({given}), "as given")
    for recording in (primary, secondary):
        if not recording.sources:
            raise CaptureError(
                f"{recording.path}: no IP frames in it; is it a capture of a guest's interface?"
            )
    if len(primary.sources) == 1 and len(secondary.sources) == 1:
        return Guests(frozenset({*primary.sources, *secondary.sources}), "the only one that sent IP frames")
    two = {
        opening.source
        for opening, other in _common(primary, secondary)
        if opening.syn and other.syn and opening.source == other.source and opening.seq != other.seq
    }
    if len(two) == 1:
        return Guests(frozenset(two), "its initial sequence numbers differ between the captures")
    answering = {
        opening.source
        for recording in (primary, secondary)
        for opening in recording.openings.values()
        if opening.answers
    }
    if len(answering) == 1:
        return Guests(frozenset(answering), "the only one that sent SYN-ACKs")
    raise CaptureError(
        f"{primary.path}: which frames are the guest's own? It has {_sources(primary)}: "
        "name the guest with --guest-mac"
    )


def _sources(recording: Recording) -> str:
    """List who sent IP frames, the busiest first."""
    busiest = sorted(recording.sources.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{mac_text(mac)} ({count} frames)" for mac, count in busiest[:5])
    return shown + (f" and {len(busiest) - 5} more" if len(busiest) > 5 else "")


def _common(one: Recording, other: Recording) -> Iterator[tuple[Opening, Opening]]:
    """Give the openings of the flows that both captures have, in the order of the first capture."""
    for key, opening in one.openings.items():
        if key in other.openings:
            yield opening, other.openings[key]


def first_common(one: Recording, other: Recording, guests: Guests) -> int | None:
    """Give by how much `one`'s clock is ahead, in nanoseconds, by the first frame that stands in both.

    None if no flow begins in both.
    """
    for first, second in _common(one, other):
        same_seq = first.seq == second.seq or first.source in guests.macs
        if first.syn and second.syn and same_seq and first.answers == second.answers:
            return first.at - second.at
        if first.content and first.content == second.content:
            return first.at - second.at
    return None


@dataclass(frozen=True)
class Timeline:
    """All frames of all captures in the order of the primary's clock."""

    primary: Recording
    secondary: Recording
    client: Recording | None
    guests: Guests
    secondary_shift: int  # nanoseconds to add to the secondary's clock
    client_shift: int
    aligned: bool  # by a common frame; else the clocks were taken as they are

    @property
    def start(self) -> int:
        """The time of the first frame, nanoseconds since 1970."""
        starts = [self.primary.start, self.secondary.start + self.secondary_shift]
        if self.client is not None:
            starts.append(self.client.start + self.client_shift)
        return min(starts)

    def notes(self) -> list[str]:
        """Say what is odd about the captures."""
        recordings = (self.primary, self.secondary, self.client)
        return [recording.note for recording in recordings if recording is not None and recording.note]

    def __iter__(self) -> Iterator[tuple[float, int, bytes]]:
        """Give time (seconds from `start`), side and frame, for all frames that the proxy would have got."""
        streams = [self._primary_frames(), self._secondary_frames()]
        if self.client is not None:
            streams.append(self._client_frames(self.client))
        return heapq.merge(*streams, key=lambda entry: entry[0])

    def _primary_frames(self) -> Iterator[tuple[float, int, bytes]]:
        start = self.start
        for at, data in self.primary.frames():
            if self.guests.sent(data):
                yield (at - start) / 1e9, PRIMARY, data
            elif self.client is None and self.guests.get(data):
                yield (at - start) / 1e9, CLIENT, data

    def _secondary_frames(self) -> Iterator[tuple[float, int, bytes]]:
        shift = self.secondary_shift - self.start
        for at, data in self.secondary.frames():
            if self.guests.sent(data):
                yield (at + shift) / 1e9, SECONDARY, data

    def _client_frames(self, client: Recording) -> Iterator[tuple[float, int, bytes]]:
        shift = self.client_shift - self.start
        for at, data in client.frames():
            if not self.guests.sent(data):
                yield (at + shift) / 1e9, CLIENT, data


def lay_out(
    primary: Recording, secondary: Recording, client: Recording | None, guest: bytes | None, align: str
) -> Timeline:
    """Tell the sides apart and make the clocks one. Raises CaptureError where the sides cannot be told."""
    guests = find_guests(primary, secondary, guest)
    secondary_shift = client_shift = None
    if align == START:
        secondary_shift = first_common(primary, secondary, guests)
        if client is not None:
            client_shift = first_common(primary, client, guests)
    return Timeline(
        primary,
        secondary,
        client,
        guests,
        secondary_shift or 0,
        client_shift or 0,
        secondary_shift is not None,
    )
