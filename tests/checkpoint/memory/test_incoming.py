"""What the secondary's end refuses: each message at a time when it must not come."""

import pytest

from colo_compare.checkpoint.memory.incoming import Apply, FenceGuest, Incoming, PromoteGuest, ResumeGuest
from colo_compare.checkpoint.memory.messages import (
    ABORT,
    APPLY,
    DEVICE,
    FENCE,
    HELLO,
    PAGES,
    PING,
    PROMOTE,
    REQUEST,
    RESUME,
    SYNC,
    WELCOME,
    ZEROS,
    Hello,
    Message,
    ProtocolError,
    counted,
)
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_IDLE

ALL = Message(ZEROS, 1, runs=[(0, 8)])


def session(channels: int = 1) -> Incoming:
    hellos = [Hello(b"s" * 16, index, channels, 64, 512) for index in range(channels)]
    incoming = Incoming(hellos[0], page_size=64, size=512, timeout=1.0, now=0.0)
    for hello in hellos:
        incoming.open_channel(hello, 0.0)
    return incoming


def take(incoming: Incoming, *messages: Message, channel: int = 0) -> list[object]:
    """Let messages in, one after the other; gives the tasks."""
    tasks: list[object] = []
    for message in messages:
        incoming.admit(channel, message.kind, message.number)
        tasks += incoming.receive(channel, message, 0.0)[1]
    return tasks


REQUESTED = (ALL, Message(REQUEST, 1))
RECEIVED = (*REQUESTED, counted(SYNC, 1, 0))
APPLYING = (*RECEIVED, Message(APPLY, 1))


@pytest.mark.parametrize(
    ("before", "message", "reason"),
    [
        ((), Message(HELLO), "HELLO came in state idle"),
        ((), Message(WELCOME), "WELCOME came in state idle"),
        ((), Message(APPLY, 1), r"APPLY\(1\) came in state idle"),
        ((), Message(RESUME, 1), r"RESUME\(1\) came in state idle"),
        ((), Message(ABORT, 0), r"ABORT\(0\) came in state idle"),
        ((), Message(DEVICE, 1), r"DEVICE\(1\) came in state idle"),
        ((), counted(SYNC, 1, 0), r"SYNC\(1\) came in state idle"),
        ((), Message(REQUEST, 0), "came in state idle of checkpoint 0"),
        (REQUESTED, Message(REQUEST, 2), "came in state requested"),
        (REQUESTED, Message(APPLY, 1), "came in state requested"),
        (REQUESTED, counted(SYNC, 1, 5), "0 bytes of device state came, 5 were sent"),
        (REQUESTED, counted(SYNC, 2, 0), "came in state requested of checkpoint 1"),
        (REQUESTED, Message(SYNC, 1, b"12"), "has 2 bytes, not 8"),
        (REQUESTED, Message(ABORT, 2), "came in state requested of checkpoint 1"),
        (RECEIVED, Message(PAGES, 1, runs=[(0, 1)]), "came after its last page"),
        (RECEIVED, Message(DEVICE, 1), "came in state received"),
        (APPLYING, Message(APPLY, 1), "came in state applying"),
        (APPLYING, Message(ABORT, 1), "came in state applying"),
        (APPLYING, Message(PAGES, 2, runs=[(0, 1)]), "while the cache is being applied"),
    ],
)
def test_a_message_at_the_wrong_time(before: tuple[Message, ...], message: Message, reason: str) -> None:
    incoming = session()
    take(incoming, *before)
    with pytest.raises(ProtocolError, match=reason):
        take(incoming, message)


def test_only_pages_and_the_sync_come_on_other_channels() -> None:
    incoming = session(2)
    take(incoming, ALL, channel=1)
    with pytest.raises(ProtocolError, match="REQUEST came on channel 1, not on 0"):
        take(incoming, Message(REQUEST, 1), channel=1)


def test_a_channel_that_is_in_sync_carries_no_more_of_that_checkpoint() -> None:
    incoming = session(2)
    take(incoming, *REQUESTED, counted(SYNC, 1, 0))
    with pytest.raises(ProtocolError, match="after its last page"):
        take(incoming, Message(ZEROS, 1, runs=[(0, 1)]))
    with pytest.raises(ProtocolError, match="ends checkpoint 1 twice"):
        take(incoming, counted(SYNC, 1, 0))


def test_what_is_left_of_an_aborted_checkpoint_is_let_go() -> None:
    incoming = session(2)
    take(incoming, *REQUESTED, Message(ABORT, 1))
    take(incoming, counted(SYNC, 1, 0), channel=1)
    take(incoming, Message(REQUEST, 2))
    take(incoming, Message(ZEROS, 1, runs=[(0, 1)]), counted(SYNC, 1, 0), channel=1)
    take(incoming, counted(SYNC, 2, 0))
    take(incoming, counted(SYNC, 2, 0), channel=1)
    assert [type(task) for task in take(incoming, Message(APPLY, 2))] == [Apply]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(b"s" * 16, 0, 65, 64, 512), "1 to 64 are possible"),
        (Hello(b"s" * 16, 0, 1, 4096, 4096), "give both guests the same memory"),
    ],
)
def test_a_session_that_cannot_be(hello: Hello, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Incoming(hello, page_size=64, size=512, timeout=1.0, now=0.0)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(b"s" * 16, 0, 1, 64, 512), "is open already"),
        (Hello(b"s" * 16, 1, 1, 64, 512), "or one too many"),
        (Hello(b"t" * 16, 0, 1, 64, 512), "another session"),
    ],
)
def test_a_channel_that_does_not_belong(hello: Hello, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        session().open_channel(hello, 0.0)


def test_after_the_end_nothing_is_answered() -> None:
    """The guest is still being worked on when the connection breaks."""
    incoming = session()
    take(incoming, *APPLYING)
    incoming.broke("cut")
    incoming.broke("a later reason")
    assert (incoming.state, incoming.failure) == (AT_BROKEN, "cut")
    assert incoming.applied_state(3) == []
    assert incoming.applied == (b"s" * 16, 1)  # all the same: a new session tells
    assert incoming.resumed() == incoming.promoted() == incoming.lost_guest("why") == []
    assert incoming.not_applied("why", intact=True) == []
    with pytest.raises(ProtocolError, match="PING came in state broken"):
        take(incoming, Message(PING))


def test_a_state_that_could_not_be_applied_can_be_sent_again() -> None:
    incoming = session()
    take(incoming, *APPLYING)
    ((_, answer),) = incoming.not_applied("no room", intact=True)
    assert (answer.body, incoming.state) == (b"\x01no room", AT_IDLE)
    (task,) = take(incoming, Message(REQUEST, 2), counted(SYNC, 2, 0), Message(APPLY, 2))
    assert isinstance(task, Apply)
    assert task.received == [(0, 8)]  # what came before still counts


def test_the_guest_is_let_run_kept_and_killed_as_told() -> None:
    incoming = session()
    take(incoming, *APPLYING)
    incoming.applied_state(0)
    assert take(incoming, Message(RESUME, 1)) == [ResumeGuest()]
    assert [message.kind for _, message in incoming.resumed()] != []
    assert take(incoming, Message(PROMOTE)) == [PromoteGuest()]
    assert take(incoming, Message(FENCE)) == [FenceGuest()]
