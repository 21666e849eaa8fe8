"""IPv6 extension headers (RFC 8200, section 4)."""

from typing import Final

HEADER_LEN: Final = 40
HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
DESTINATION: Final = 60
FRAGMENT_HEADER_LEN: Final = 8

MALFORMED: Final = -1

_MAX_HEADERS: Final = 16  # RFC 8200 names four kinds; a limit, so that one frame cannot cost milliseconds


def skip_extension_headers(data: bytes, start: int, end: int, protocol: int) -> tuple[int, int, int]:
    """Give (protocol, where its header begins, where the fragment header begins or 0).

    `protocol` is the Next Header value for the header at `start`. Stops behind a fragment header unless that
    is an atomic fragment (RFC 6946), which is the whole datagram. Authentication and encapsulated payload
    (AH, ESP) count as protocols. The protocol is MALFORMED where a header does not end before `end`, or where
    there are more than 16.
    """
    at = start
    for _ in range(_MAX_HEADERS):
        if protocol not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION):
            return protocol, at, 0
        if at + 8 > end:
            return MALFORMED, at, 0
        if protocol == FRAGMENT:
            if data[at + 2] or data[at + 3] & 0xF9:
                return data[at], at + FRAGMENT_HEADER_LEN, at
            protocol = data[at]
            at += FRAGMENT_HEADER_LEN
        else:
            protocol = data[at]
            at += 8 + data[at + 1] * 8
            if at > end:
                return MALFORMED, at, 0
    return MALFORMED, at, 0
