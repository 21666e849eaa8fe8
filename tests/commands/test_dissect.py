import sys

import pytest

from colo_compare.commands.dissect import available, differing_fields
from tests.conversation import Clock, Conversation


def test_the_fields_of_two_answers() -> None:
    talk = Conversation(Clock(0.0))
    head = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Tue, 24 Nov 2026 21:01:3"
    ours = talk.primary.data(head + b"2 GMT\r\n\r\n", at=1000).data
    theirs = talk.secondary.data(head + b"3 GMT\r\n\r\n", at=1000).data
    found = {difference.field: difference for difference in differing_fields(ours, theirs)}
    date = found["HTTPResponse.Date"]
    assert (date.primary, date.secondary, date.note) == (
        "Tue, 24 Nov 2026 21:01:32 GMT",
        "Tue, 24 Nov 2026 21:01:33 GMT",
        "",
    )
    assert found["TCP.chksum"].note == "not compared"
    assert "HTTPResponse.Server" not in found


def test_a_frame_that_is_not_there_or_cut_short_has_what_it_has() -> None:
    talk = Conversation(Clock(0.0))
    syn = talk.primary.syn_ack(mss=1460).data
    assert differing_fields(syn, syn) == []
    found = {
        difference.field: difference
        for difference in differing_fields(syn, talk.secondary.syn_ack(mss=536).data)
    }
    assert (found["TCP.MSS"].primary, found["TCP.MSS"].secondary) == ("1460", "536")
    assert all(not difference.secondary for difference in differing_fields(syn, b""))
    for length in range(len(syn)):
        differing_fields(syn[:length], syn)


def test_it_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setitem(sys.modules, "scapy", None)
    assert not available()


def test_a_long_value_is_cut() -> None:
    talk = Conversation(Clock(0.0))
    ours = talk.primary.data(b"HTTP/1.1 200 OK\r\nServer: " + b"x" * 90 + b"\r\n\r\n").data
    theirs = talk.primary.data(b"HTTP/1.1 200 OK\r\nServer: y\r\n\r\n").data
    (server,) = [found for found in differing_fields(ours, theirs) if found.field == "HTTPResponse.Server"]
    assert server.primary == "x" * 45 + "..."
