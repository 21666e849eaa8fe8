"""HTTP on the guest."""

from zlib import crc32

import pytest

from colo_compare.demo.content import blocks
from colo_compare.guest import Noise
from tests.frames import ACK, FIN
from tests.guest.peer import Peer, new_machine


def ask(peer: Peer, *lines: str, body: bytes = b"") -> tuple[str, bytes]:
    """Give the head and the body of the answer to one request."""
    head, _, answer = peer.download("\r\n".join((*lines, "", "")).encode() + body).partition(b"\r\n\r\n")
    return head.decode(), answer


def put(peer: Peer, key: str, value: bytes) -> str:
    return ask(peer, f"PUT /kv/{key} HTTP/1.1", f"Content-Length: {len(value)}", body=value)[0].split("\r\n")[
        0
    ]


@pytest.fixture
def peer() -> Peer:
    return Peer(new_machine()).open()


def test_the_content_is_the_demo_s(peer: Peer) -> None:
    for size in (0, 1, 8, 9, 100_000, (1 << 18) + 20):
        head, body = ask(peer, f"GET /bytes/{size} HTTP/1.1", "Host: guest")
        assert head == f"HTTP/1.1 200 OK\r\nContent-Length: {size}"
        assert body == b"".join(blocks(size))
    assert peer.machine.header.requests == 6
    assert not peer.ended


def test_head_gives_the_length_only(peer: Peer) -> None:
    assert ask(peer, "HEAD /bytes/10 HTTP/1.1") == ("HTTP/1.1 200 OK\r\nContent-Length: 10", b"")


def test_values_are_kept_by_name(peer: Peer) -> None:
    assert put(peer, "a", b"one") == "HTTP/1.1 200 OK"
    assert put(peer, "b", bytes(3072)) == "HTTP/1.1 200 OK"
    assert ask(peer, "GET /kv/a HTTP/1.1")[1] == b"one"
    assert ask(peer, "GET /kv/b HTTP/1.1")[1] == bytes(3072)
    put(peer, "a", b"two")
    assert ask(Peer(peer.machine, own_port=40001).open(), "GET /kv/a HTTP/1.1")[1] == b"two"
    assert ask(peer, "DELETE /kv/a HTTP/1.1")[0].startswith("HTTP/1.1 204")
    assert ask(peer, "DELETE /kv/a HTTP/1.1")[0].startswith("HTTP/1.1 404")
    assert ask(peer, "GET /kv/a HTTP/1.1")[0].startswith("HTTP/1.1 404")


def test_a_full_store_says_so_and_has_room_again(peer: Peer) -> None:
    for number in range(8):
        assert put(peer, str(number), b"x") == "HTTP/1.1 200 OK"
    other = Peer(peer.machine, own_port=40001).open()
    assert put(other, "more", b"x") == "HTTP/1.1 507 Insufficient Storage"
    assert other.ended
    ask(peer, "DELETE /kv/3 HTTP/1.1")
    assert put(peer, "more", b"y") == "HTTP/1.1 200 OK"
    assert [ask(peer, f"GET /kv/{name} HTTP/1.1")[1] for name in ("7", "more")] == [b"x", b"y"]


def test_counters_count(peer: Peer) -> None:
    assert ask(peer, "GET /counters/n HTTP/1.1")[1] == b"0\n"
    assert [ask(peer, "POST /counters/n HTTP/1.1")[1] for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    assert ask(peer, "GET /counters/n HTTP/1.1")[1] == b"3\n"
    assert put(peer, "n", b"a value") == "HTTP/1.1 200 OK"  # of the same name: something else
    assert ask(peer, "GET /counters/n HTTP/1.1")[1] == b"3\n"


def test_a_value_is_stored_whole_or_not_at_all(peer: Peer) -> None:
    put(peer, "a", b"old")
    peer.send(b"PUT /kv/a HTTP/1.1\r\nContent-Length: 6\r\n\r\nnew")
    other = Peer(peer.machine, own_port=40001).open()
    assert ask(other, "GET /kv/a HTTP/1.1")[1] == b"old"
    peer.send(b"", ACK | FIN)
    assert peer.ended
    assert ask(other, "GET /kv/a HTTP/1.1")[1] == b"old"


def test_a_client_that_waits_is_told_to_go_on(peer: Peer) -> None:
    head = b"PUT /kv/a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    assert peer.download(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert peer.download(b"ab") == b""
    assert peer.download(b"c").endswith(b"\r\n\r\n1\n")


def test_uploads_are_summed_up(peer: Peer) -> None:
    body = b"".join(blocks(50_000))
    peer.send(b"POST /crc32 HTTP/1.1\r\nContent-Length: 50000\r\nExpect: 100-continue\r\n\r\n")
    for at in range(0, len(body), 1000):
        peer.send(body[at : at + 1000])
    assert peer.got.startswith(b"HTTP/1.1 100")
    assert peer.got.endswith(b"\r\n\r\n%08x 50000\n" % crc32(body))


def test_an_upload_that_ends_too_early_ends_the_connection(peer: Peer) -> None:
    peer.send(b"POST /crc32 HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", ACK | FIN)
    assert peer.ended
    assert peer.got == b""


def test_requests_may_come_in_pieces_and_in_bunches(peer: Peer) -> None:
    request = b"GET /bytes/1 HTTP/1.1\r\n\r\n"
    for byte in request:
        assert peer.got == b""
        peer.send(bytes((byte,)))
    one = peer.got
    assert one.endswith(b"\0")
    assert peer.download(request * 5) == one * 5


def test_requests_wait_while_answers_have_no_room(peer: Peer) -> None:
    peer.window = 0
    request = b"GET /bytes/3000 HTTP/1.1\r\n\r\n"
    peer.send(request * 5)
    assert peer.machine.header.requests == 3  # the send buffer has 8,192 bytes
    put(Peer(peer.machine, own_port=40001).open(), "v", bytes(4000))
    peer.send(b"GET /kv/v HTTP/1.1\r\n\r\n")
    peer.window = 60000
    peer.download(b"")
    assert peer.machine.header.requests == 7
    assert peer.got.endswith(bytes(4000))


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        ("GET /bytes/1 HTTP/1.1\r\nConnection: close", True),
        ("GET /bytes/1 HTTP/1.0", True),
        ("GET /bytes/1 HTTP/1.0\r\nConnection: Keep-Alive", False),
        ("GET /bytes/1 HTTP/1.1", False),
        ("GET /clock HTTP/1.1\r\nConnection: close", True),
    ],
)
def test_the_connection_stays_open_as_the_client_likes(peer: Peer, head: str, closes: bool) -> None:
    answer, _ = ask(peer, head)
    assert peer.ended == closes
    assert ("Connection: close" in answer) == closes


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("nonsense", 400),
        ("GET bytes HTTP/1.1", 400),
        ("GET / FTP/1.1", 400),
        ("GET / HTTP/1.1\r\nno colon", 400),
        ("PUT /kv/a HTTP/1.1\r\nContent-Length: -1", 400),
        ("PUT /kv/a HTTP/1.1\r\nContent-Length: 5000", 413),
        (f"PUT /kv/a HTTP/1.1\r\nContent-Length: {1 << 63}", 413),
        ("PUT /kv/ HTTP/1.1\r\nContent-Length: 1", 404),
        (f"PUT /kv/{'a' * 81} HTTP/1.1\r\nContent-Length: 1", 404),
        ("POST /crc32 HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        ("POST / HTTP/1.1\r\nContent-Length: 1", 405),
        ("PUT /counters/a HTTP/1.1", 405),
        (f"POST /counters/{'a' * 81} HTTP/1.1", 404),
        ("GET /" + "a" * 5000, 431),
    ],
)
def test_what_cannot_be_served_ends_the_connection(peer: Peer, head: str, status: int) -> None:
    request = head.encode() + b"\r\n\r\n"
    for at in range(0, len(request), 1000):
        peer.send(request[at : at + 1000])
    assert peer.got.startswith(b"HTTP/1.1 %d " % status)
    assert peer.ended


@pytest.mark.parametrize("path", ["/", "/bytes/", "/bytes/x", f"/bytes/{10**15}", "/kv/none", "/clocks"])
def test_what_is_not_there_is_not_found(peer: Peer, path: str) -> None:
    assert ask(peer, f"GET {path} HTTP/1.1")[0].startswith("HTTP/1.1 404")
    assert not peer.ended


def test_a_client_that_ends_in_the_middle_of_a_head_gets_no_answer(peer: Peer) -> None:
    peer.send(b"GET /", ACK | FIN)
    assert peer.got == b""
    assert peer.ended


def test_the_clock_is_the_guest_s(peer: Peer) -> None:
    peer.now = 12.5
    assert ask(peer, "GET /clock HTTP/1.1")[1] == b"12500000\n"


def test_noise_makes_two_guests_differ_in_each_nth_answer() -> None:
    heads = []
    for seed in (1, 2):
        peer = Peer(new_machine(noise=Noise(seed=seed, random_every=3))).open()
        heads.append([ask(peer, "GET /bytes/4 HTTP/1.1") for _ in range(6)])
    for number, (one, other) in enumerate(zip(*heads, strict=True), 1):
        assert one[1] == other[1] == bytes(4)
        assert ("X-Random: " in one[0]) == (number % 3 == 0)
        assert (one == other) == (number % 3 != 0)
        assert len(one[0]) == len(other[0])  # so that a byte stream differs, and not its length


def test_jitter_makes_the_clock_fast_but_never_steps_back() -> None:
    peer = Peer(new_machine(noise=Noise(seed=1, clock_jitter=0.1))).open()
    readings = [int(ask(peer, "GET /clock HTTP/1.1")[1]) for _ in range(20)]
    assert readings == sorted(readings)
    assert 1_000_000 < readings[0] < readings[-1] <= 1_100_000
