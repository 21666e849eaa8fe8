from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import PortClosed, PromotionFailed
from colo_compare.failover import FENCING_LIMIT
from colo_compare.ports.memory import MemoryPort
from tests.rig import ABLE, SETTINGS, Rig, Scripted, hang, seen


async def refuse() -> None:
    """Script of a backend that cannot fence."""
    await trio.lowlevel.checkpoint()
    raise PromotionFailed("the power switch does not answer")


async def burst() -> None:
    """Script of a backend with a bug."""
    await trio.lowlevel.checkpoint()
    raise RuntimeError("a bug\nin two lines")


# The secondary


async def test_without_its_secondary_the_primary_serves_on_alone(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        held = rig.talk.primary.datagram(b"held")
        await rig.send(rig.primary, held)
        assert seen(rig.client) == []
        await rig.secondary.aclose()
        await rig.settle()
        assert rig.loop.proxy.mode == "solo"
        assert rig.backend.calls == ["request 1", "abandon secondary"]
        assert seen(rig.client) == [held.data]
        assert rig.loop.secondary is None
        assert rig.loop.links[SECONDARY].role_name == "lost"

        alone = rig.talk.primary.datagram(b"alone")
        await rig.send(rig.primary, alone)
        assert seen(rig.client) == [alone.data]
        await rig.send(rig.client, rig.talk.client.datagram(b"hello"))
        assert len(seen(rig.primary)) == 1
    assert rig.error is None


async def test_block_holds_on_without_a_secondary(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, on_secondary_loss="block"))
    async with rig.running():
        await rig.secondary.aclose()
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held"))
        assert rig.loop.proxy.mode == "block"
        assert seen(rig.client) == []


async def test_a_lost_secondary_is_cut_off_before_anything_is_released(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_abandon = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held"))
        await rig.backend.handlers.guest_lost(SECONDARY, "no heartbeat")
        rig.put(rig.secondary, rig.talk.secondary.datagram(b"from the dead"))
        await rig.settle()
        # The service does not wait for the backend, which still fences.
        assert rig.backend.calls[-1] == "abandon secondary"
        assert len(seen(rig.client)) == 1
        with pytest.raises(PortClosed):
            seen(rig.secondary)


@pytest.mark.parametrize("script", [refuse, burst])
async def test_a_backend_that_cannot_abandon_stops_nothing(
    mock_clock: MockClock, script: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_abandon = script
        await rig.secondary.aclose()
        await rig.settle()
        assert rig.loop.proxy.mode == "solo"
        assert not rig.ended.is_set()
    assert "could not abandon the secondary" in caplog.text


async def test_a_checkpoint_under_way_is_cancelled_when_its_secondary_is_lost(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)

    async def after_the_request() -> None:
        await trio.lowlevel.checkpoint()
        assert rig.backend.cancelled == ["request 2"]

    async with rig.running():
        rig.backend.on_request = hang
        rig.backend.on_abandon = after_the_request
        rig.loop.proxy.request_checkpoint("operator", trio.current_time())
        rig.loop.perform()
        await rig.settle()
        await rig.secondary.aclose()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "request 2", "abandon secondary"]
        assert "could not abandon" not in caplog.text


async def test_a_secondary_that_the_core_gives_up_is_abandoned(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        await rig.jump(SETTINGS.compare_timeout)
        assert rig.backend.calls == ["request 1", "request 2"]
        await rig.jump(SETTINGS.checkpoint_timeout)
        assert rig.loop.proxy.mode == "solo"
        assert rig.backend.cancelled == ["request 2"]
        assert rig.backend.calls[-1] == "abandon secondary"
        assert rig.loop.secondary is None
        assert len(seen(rig.client)) == 1


async def test_a_loss_that_is_known_is_no_news(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    caplog.set_level("INFO", "colo_compare")
    async with rig.running():
        await rig.secondary.aclose()
        await rig.settle()
        await rig.backend.handlers.guest_lost(SECONDARY, "no heartbeat")
        await rig.settle()
        assert rig.backend.calls == ["request 1", "abandon secondary"]
    assert "which was known: no heartbeat" in caplog.text


# The primary


async def test_the_secondary_takes_over(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"nobody saw this"))
        early = rig.talk.secondary.datagram(b"sent before, and never matched")
        await rig.send(rig.secondary, early)
        await rig.primary.aclose()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "promote secondary"]
        assert rig.loop.proxy.mode == "solo"
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.primary.role == PRIMARY
        assert rig.loop.links[PRIMARY].role_name == "lost"
        got = seen(rig.client)
        assert early.data in got
        assert b"nobody saw this" not in b"".join(got)

        alive = rig.talk.secondary.datagram(b"alive")
        await rig.send(rig.secondary, alive)
        assert alive.data in seen(rig.client)
        seen(rig.secondary)
        question = rig.talk.client.datagram(b"still there?")
        await rig.send(rig.client, question)
        assert seen(rig.secondary) == [question.data]
    assert rig.error is None


async def test_what_the_secondary_had_said_goes_out_by_its_own_port(mock_clock: MockClock) -> None:
    """As between QEMU's filters, where the client's port was the old primary's."""
    rig = Rig(mock_clock, replace(SETTINGS, mirror=False, rewrite=False))
    rig.backend.releases_by_port = True
    async with rig.running():
        matched = rig.talk.primary.datagram(b"said by both")
        await rig.send(rig.primary, matched)
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"said by both"))
        early = rig.talk.secondary.datagram(b"sent before, and never matched")
        await rig.send(rig.secondary, early)
        assert seen(rig.client) == [matched.data]
        await rig.primary.aclose()
        await rig.settle()
        assert seen(rig.client) == []
        assert seen(rig.secondary) == [early.data]
    assert rig.error is None


async def test_nothing_is_promoted_before_the_primary_is_fenced(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        await rig.primary.aclose()
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"early"))
        assert rig.backend.calls[-1] == "promote secondary"
        assert rig.loop.proxy.mode == "protect"
        assert seen(rig.client) == []
        # However long that takes, the core does not lose patience with the secondary meanwhile.
        await rig.jump(SETTINGS.compare_timeout + SETTINGS.checkpoint_timeout)
        assert rig.loop.proxy.mode == "protect"
        fenced.set()
        await rig.settle()
        assert rig.loop.proxy.mode == "solo"
        assert rig.loop.primary.name == "secondary"


async def test_a_primary_that_is_not_fenced_in_time_is_not_replaced(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_promote = hang
        await rig.primary.aclose()
        await rig.settle()
        await rig.jump(FENCING_LIMIT)
        assert rig.ended.is_set()
    assert isinstance(rig.error, PromotionFailed)
    assert "no answer in time" in str(rig.error)


@pytest.mark.parametrize(
    ("script", "words"),
    [(refuse, "the power switch does not answer"), (burst, "RuntimeError: a bug in two lines")],
)
async def test_without_a_fence_nothing_more_is_sent(
    mock_clock: MockClock, script: Callable[[], Awaitable[None]], words: str
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_promote = script
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"must not go out"))
        await rig.primary.aclose()
        await rig.settle()
        assert rig.ended.is_set()
        assert seen(rig.client) == []
    assert isinstance(rig.error, PromotionFailed)
    assert words in str(rig.error)
    assert "\n" not in str(rig.error)


async def test_a_backend_that_cannot_promote_leaves_it_to_the_network(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock, backend=Scripted(replace(ABLE, can_promote=False)))
    async with rig.running():
        await rig.primary.aclose()
        await rig.settle()
        assert rig.backend.calls == ["request 1"]
        assert rig.loop.primary.name == "secondary"
    assert "the checkpointer cannot promote" in caplog.text


async def test_a_primary_that_its_backend_reports_lost_is_fenced_by_its_port_too(
    mock_clock: MockClock,
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.backend.handlers.guest_lost(PRIMARY, "qemu is dead")
        await rig.settle()
        assert rig.loop.primary.name == "secondary"
        assert "qemu is dead" in rig.loop.links[PRIMARY].failure
        with pytest.raises(PortClosed):
            seen(rig.primary)


async def test_before_the_first_commit_nothing_can_take_over(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.on_request = hang
    async with rig.running():
        await rig.primary.aclose()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)
    assert "nothing can take over: the secondary is not equal to the primary" in str(rig.error)
    assert "promote secondary" not in rig.backend.calls


@pytest.mark.parametrize("first", ["primary", "secondary"])
async def test_without_any_guest_the_loop_ends(mock_clock: MockClock, first: str) -> None:
    rig = Rig(mock_clock)
    ends: dict[str, MemoryPort] = {"primary": rig.primary, "secondary": rig.secondary}
    async with rig.running():
        await ends.pop(first).aclose()
        await rig.settle()
        assert not rig.ended.is_set()
        await ends.popitem()[1].aclose()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)
    assert "there is no secondary (mode solo)" in str(rig.error)


async def test_both_guests_at_once(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.failover.report(rig.loop.links[SECONDARY], "power failure")
        rig.loop.failover.report(rig.loop.links[PRIMARY], "power failure")
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)


async def test_a_secondary_that_dies_while_the_primary_is_fenced(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        await rig.primary.aclose()
        await rig.settle()
        await rig.secondary.aclose()
        await rig.settle()
        assert not rig.ended.is_set()
        fenced.set()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PromotionFailed)
    assert "nothing can take over any more: the secondary is lost" in str(rig.error)


# By the operator


async def test_the_operator_moves_the_service(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        old = rig.loop.primary
        await rig.loop.failover.promote("asked for by the operator")
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.failover.reason == "asked for by the operator"
        # The old primary lives, but it is cut off: whatever it says is not even read.
        with pytest.raises(PortClosed):
            await rig.send(rig.primary, rig.talk.primary.datagram(b"I am the primary"))
        assert old.role_name == "lost"
        alive = rig.talk.secondary.datagram(b"alive")
        await rig.send(rig.secondary, alive)
        assert seen(rig.client)[-1] == alive.data


async def test_frames_that_the_old_primary_left_in_its_port_are_never_read(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():

        async def last_words() -> None:
            await trio.lowlevel.checkpoint()
            rig.put(rig.primary, rig.talk.primary.datagram(b"last words"))
            rig.put(rig.secondary, rig.talk.secondary.datagram(b"first words"))

        rig.backend.on_promote = last_words
        await rig.loop.failover.promote("asked for by the operator")
        await rig.settle()
        got = b"".join(seen(rig.client))
        assert b"first words" in got
        assert b"last words" not in got
        received = rig.loop.proxy.counters.received
        assert received[PRIMARY] + received[SECONDARY] <= 2


async def test_a_batch_that_comes_after_the_fence_is_not_taken(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    given = trio.Event()

    class Late(MemoryPort):
        """A port that was about to give frames when it was closed."""

        async def receive_batch(self) -> list[bytes]:
            await given.wait()
            return [rig.talk.primary.datagram(b"last words").data]

    near = rig.ports[PRIMARY]
    rig.ports[PRIMARY] = Late(near.url, near.header_len, near._inbox, near._outbox)
    async with rig.running():
        await rig.loop.failover.promote("asked for by the operator")
        given.set()
        await rig.settle()
        assert seen(rig.client) == []
        assert rig.loop.proxy.counters.received == [0, 0, 0]


async def test_a_refused_promotion_changes_nothing(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_promote = refuse
        with pytest.raises(PromotionFailed, match="the power switch does not answer"):
            await rig.loop.failover.promote("asked for by the operator")
        assert rig.loop.proxy.protected
        sent = await rig.both_say(b"business as usual")
        assert seen(rig.client) == sent


async def test_there_must_be_something_to_promote(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.secondary.aclose()
        await rig.settle()
        with pytest.raises(PromotionFailed, match=r"there is no secondary \(mode solo\)"):
            await rig.loop.failover.promote("asked for by the operator")
        assert not rig.ended.is_set()


async def test_one_promotion_at_a_time(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running(), trio.open_nursery() as nursery:
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        nursery.start_soon(rig.loop.failover.promote, "asked for by the operator")
        await rig.settle()
        with pytest.raises(PromotionFailed, match="under way already"):
            await rig.loop.failover.promote("asked for again")
        fenced.set()
    assert rig.backend.calls.count("promote secondary") == 1


async def test_a_primary_that_dies_while_it_is_fenced_is_no_second_loss(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running(), trio.open_nursery() as nursery:
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        nursery.start_soon(rig.loop.failover.promote, "asked for by the operator")
        await rig.settle()
        await rig.primary.aclose()
        await rig.settle()
        fenced.set()
        await rig.settle()
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.links[PRIMARY].failure == "memory:primary: the other end was closed"
        assert not rig.ended.is_set()


# A checkpoint that is under way when the primary dies


async def test_what_has_not_touched_the_secondary_is_cancelled(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang  # it has not even paused
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        await rig.jump(SETTINGS.compare_timeout)
        await rig.primary.aclose()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "request 2", "promote secondary"]
        assert rig.backend.cancelled == ["request 2"]
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.proxy.epoch == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_a_checkpoint_that_may_have_been_loaded_comes_to_its_result_first(
    mock_clock: MockClock, committed: bool
) -> None:
    rig = Rig(mock_clock)
    answer = trio.Event()

    async def slowly(request: object) -> None:
        await rig.backend.handlers.paused(2)
        await answer.wait()
        if committed:
            await rig.backend.commit(request)  # type: ignore[arg-type]  # a CheckpointRequest
        else:
            await rig.backend.handlers.failed(2, "connection lost", secondary_intact=True)

    async with rig.running():
        rig.backend.on_request = slowly
        covered = rig.talk.primary.datagram(b"covered")
        await rig.send(rig.primary, covered)
        await rig.jump(SETTINGS.compare_timeout)
        assert rig.loop.proxy.checkpoint_state == "paused"
        await rig.primary.aclose()
        await rig.settle()
        assert rig.backend.calls[-1] == "request 2"  # not promoted yet
        answer.set()
        await rig.settle()
        assert rig.backend.calls[-1] == "promote secondary"
        assert rig.loop.primary.name == "secondary"
        # Committed, the new state stands behind what it covered; else nobody may ever see it.
        assert (covered.data in seen(rig.client)) == committed


async def test_a_checkpoint_without_a_result_leaves_nothing_to_promote(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def vanish(request: object) -> None:
        await rig.backend.handlers.paused(2)
        await trio.sleep_forever()

    async with rig.running():
        rig.backend.on_request = vanish
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        await rig.jump(SETTINGS.compare_timeout)
        await rig.primary.aclose()
        await rig.settle()
        await rig.jump(SETTINGS.checkpoint_timeout)
        assert rig.ended.is_set()
        assert seen(rig.client) == []
    assert isinstance(rig.error, PromotionFailed)
    assert "the secondary's state is unknown" in str(rig.error)
