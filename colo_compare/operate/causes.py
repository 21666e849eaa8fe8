"""Why two guests that should be equal said something else: a guess from the bytes round the difference.

A guess, for people: what it is called decides nothing in the proxy. Each rule looks at a few hundred bytes.
"""

import re
from typing import Final

import msgspec

from colo_compare.core.counters import HANDSHAKE, PAYLOAD, RESET, SIGNED, STREAM_END, TIMEOUT, UNKNOWN_FLOW

TIMESTAMP: Final = "timestamp"  # a clock: one guest was a little later
RANDOM: Final = "random"  # keys, tokens, identifiers
NUMBER: Final = "number"  # a counter, or another number in text
LENGTH: Final = "length"  # one side has something that the other one has not, then they go on alike
ORDER: Final = "order"  # the same things, in another order
ONE_SIDE: Final = "one_side"  # the other side said nothing
ENDING: Final = "ending"  # one side ended the connection where the other one went on
OPTIONS: Final = "options"  # the two handshakes agree to different things, or cannot be translated
MID_STREAM: Final = "mid_stream"  # nobody has seen where this connection began
CONTENT: Final = "content"  # none of these
TLS: Final = "a TLS handshake: each side chooses random numbers and keys"  # the words for one kind of RANDOM
UNEXAMINED: Final = "unexamined"  # too many at once to look at each

_BY_REASON: Final = {
    TIMEOUT: (ONE_SIDE, "the secondary did not say it in time"),
    STREAM_END: (ENDING, "one side ended its stream where the other one went on"),
    RESET: (ENDING, "the secondary reset the connection where the primary went on"),
    HANDSHAKE: (OPTIONS, "the two guests agree to different TCP options"),
    SIGNED: (OPTIONS, "the connection signs or duplicates sequence numbers (TCP-MD5, TCP-AO, MPTCP)"),
    UNKNOWN_FLOW: (MID_STREAM, "the connection was picked up in the middle"),
}

_DAY: Final = 86400.0
_NTP_EPOCH: Final = 2208988800  # seconds from 1900 to 1970
_MONTH: Final = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK: Final = rb"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_TIMES: Final = re.compile(
    rb"|".join(
        (
            rb"(?:\w{3}, )?\d{1,2}[ -/]" + _MONTH + rb"[ -/]\d{4}[ :]" + _CLOCK,  # HTTP, mail, web logs
            _MONTH + rb" [ \d]\d (?:\d{4} )?" + _CLOCK,  # asctime, syslog
            rb"\d{4}-\d\d-\d\d(?:[T ]" + _CLOCK + rb")?",  # ISO 8601
            _CLOCK,
        )
    )
)
_DIGITS: Final = re.compile(rb"\d+(?:\.\d+)?")
_TOKEN: Final = re.compile(rb"[0-9A-Za-z+/_-]+")
_LABELS: Final = (
    re.compile(rb"(?:^|\n)([A-Za-z][A-Za-z0-9-]{0,39}): ?[^\n]*\Z"),  # a header of HTTP, SMTP, SIP
    re.compile(rb'"([^"\n]{1,40})"\s*:\s*[^,{}\n]*\Z'),  # JSON
    re.compile(rb"([A-Za-z_][A-Za-z0-9_.-]{0,39})=[^\s;&=]*\Z"),  # key=value
)
_SEVERAL: Final = 12  # bytes that are not equal by chance
_MOST_SHIFT: Final = 64  # bytes
_SHORTEST_TOKEN: Final = 8  # characters of a random identifier


class Cause(msgspec.Struct, frozen=True):
    """A kind, which is one of this module's constants, and one line about it, which quotes no contents."""

    kind: str
    text: str
    field: str = ""  # the name that stands before what differs, in protocols that are text


def find_cause(
    reason: str, before: bytes, ours: bytes, theirs: bytes, now: float, is_start: bool = False
) -> Cause:
    """Guess why the primary said `ours` where the secondary said `theirs`, both after `before`.

    `now` is Unix time; `is_start`: `before` begins where a message does.
    """
    if reason != PAYLOAD:
        return Cause(*_BY_REASON.get(reason, (CONTENT, "")))
    field = _label(before)
    if not ours or not theirs:
        who = "secondary" if ours else "primary"
        return Cause(ONE_SIDE, f"the {who} said nothing there", field)
    kind, text = _look(before, ours, theirs, now, is_start)
    return Cause(kind, text, field)


def _label(before: bytes) -> str:
    for pattern in _LABELS:
        found = pattern.search(before)
        if found is not None:
            return found[1].decode("ascii", "replace")
    return ""


def _look(before: bytes, ours: bytes, theirs: bytes, now: float, is_start: bool) -> tuple[str, str]:
    at = len(before)
    a, b = before + ours, before + theirs
    if is_start and before[:2] == b"\x16\x03":
        return RANDOM, TLS
    if _match_over(_TIMES, a, at) and _match_over(_TIMES, b, at):
        return TIMESTAMP, "a time in text"
    numbers = _match_over(_DIGITS, a, at), _match_over(_DIGITS, b, at)
    if numbers[0] and numbers[1]:
        if _is_unix_time(numbers[0], now) and _is_unix_time(numbers[1], now):
            return TIMESTAMP, "seconds since 1970, in text"
        if not _in_token(a, at, numbers[0]) and not _in_token(b, at, numbers[1]):
            return NUMBER, "a number in text"
    binary = _binary_time(a, b, at, now)
    if binary:
        return TIMESTAMP, binary
    moved = _moved(ours, theirs)
    if moved:
        return moved
    if _is_random(a, b, at):
        return RANDOM, "random bytes or letters: a key, a token, an identifier"
    return CONTENT, "the contents differ"


def _match_over(pattern: re.Pattern[bytes], text: bytes, at: int) -> bytes:
    """Give what matches at a position, b"" if nothing does."""
    low = max(at - 40, 0)
    for match in pattern.finditer(text, low, min(at + 64, len(text))):
        if match.start() <= at < match.end():
            return match[0]
        if match.start() > at:
            break
    return b""


def _is_unix_time(number: bytes, now: float) -> bool:
    """Whether a number in text is a time within a day of now, in s, ms, us or ns."""
    whole = number.split(b".")[0]
    if not 10 <= len(whole) <= 19:
        return False
    return any(abs(int(whole) / scale - now) < _DAY for scale in (1, 1e3, 1e6, 1e9))


def _in_token(text: bytes, at: int, number: bytes) -> bool:
    """Whether digits are but a part of something longer, like a hexadecimal identifier."""
    token = _match_over(_TOKEN, text, at)
    return len(token) > len(number) and len(token) >= _SHORTEST_TOKEN


def _binary_time(a: bytes, b: bytes, at: int, now: float) -> str:
    """Name the binary time that both sides have over a position, "" if they have none."""
    for width in (8, 4):
        for start in range(max(at - width + 1, 0), at + 1):
            one, two = a[start : start + width], b[start : start + width]
            if len(one) < width or len(two) < width:
                continue
            for order in ("big", "little"):
                name = _time_name(one, width, order, now)
                if name and name == _time_name(two, width, order, now):
                    return name
    return ""


def _time_name(raw: bytes, width: int, order: str, now: float) -> str:
    value = int.from_bytes(raw, "big" if order == "big" else "little")
    if width == 8:
        if order == "big" and abs((value >> 32) - _NTP_EPOCH - now) < _DAY:
            return "an NTP timestamp"
        for scale, unit in ((1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")):
            if abs(value / scale - now) < _DAY:
                return f"{unit} since 1970, binary"
        return ""
    return "seconds since 1970, binary" if abs(value - now) < _DAY else ""


def _moved(ours: bytes, theirs: bytes) -> tuple[str, str] | None:
    """Tell whether the two go on alike, but not at the same distance."""
    ours_later = _find(theirs, ours[:_SEVERAL])
    theirs_later = _find(ours, theirs[:_SEVERAL])
    if ours_later > 0 and theirs_later > 0:
        return ORDER, "both said it, in another order"
    for i in range(min(_MOST_SHIFT, len(ours))):
        piece = ours[i : i + _SEVERAL]
        j = _find(theirs, piece)
        if j >= 0 and len(set(piece)) > 2:
            if i == j:
                return None
            more, side = (i - j, "primary") if i > j else (j - i, "secondary")
            return LENGTH, f"the {side} said {more} bytes more there, then both go on alike"
    return None


def _find(text: bytes, piece: bytes) -> int:
    return text.find(piece) if len(piece) == _SEVERAL else -1


def _is_random(a: bytes, b: bytes, at: int) -> bool:
    """Whether what differs looks drawn by lot: long enough, of many different bytes, hardly any the same."""
    one, two = _match_over(_TOKEN, a, at), _match_over(_TOKEN, b, at)
    if len(one) >= _SHORTEST_TOKEN and len(one) == len(two):
        digits = sum(48 <= c < 58 for c in one)
        return len(set(one)) >= _SHORTEST_TOKEN - 2 and digits > 0 and one.lower() != two.lower()
    x, y = a[at : at + 16], b[at : at + 16]
    if min(len(x), len(y)) < _SHORTEST_TOKEN:
        return False
    same = sum(p == q for p, q in zip(x, y, strict=False))
    outside = sum(not 32 <= c < 127 for c in x)
    return same <= 2 and len(set(x)) >= len(x) - 4 and outside >= len(x) // 4
