"""A guest that runs alone gets a new secondary: in memory, under a test clock."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.actions import SecondaryJoined
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.errors import (
    ColoCompareError,
    PortClosed,
    PortUnavailable,
    PromotionFailed,
    ProtectionFailed,
)
from colo_compare.failover import FENCING_LIMIT
from colo_compare.ports.memory import MemoryPort, memory_pair
from colo_compare.protection import PEER_LIMIT
from tests.conversation import Packet
from tests.rig import ABLE, SETTINGS, Nothing, Rig, Scripted, hang, seen


class Newcomer:
    """A new guest's port, and an attempt to attach it."""

    def __init__(self, rig: Rig, name: str = "third") -> None:
        self.rig = rig
        self.near, self.far = memory_pair(name=name)
        self.error: ColoCompareError | None = None
        self.ended = trio.Event()

    async def protect(self, patience: float = float("inf"), client: MemoryPort | None = None) -> None:
        """Attach it; what comes of that is kept."""
        try:
            await self.rig.loop.protection.protect(self.near, Nothing(), patience, client)
        except ColoCompareError as error:
            self.error = error
        self.ended.set()

    @asynccontextmanager
    async def joining(
        self, patience: float = float("inf"), client: MemoryPort | None = None
    ) -> AsyncIterator["Newcomer"]:
        """Attach it beside the block."""
        await self.far.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.protect, patience, client)
            await self.rig.settle()
            yield self

    @property
    def why(self) -> str:
        """Why nothing came of it."""
        assert self.ended.is_set()
        assert self.error is not None
        return str(self.error)


async def kill(rig: Rig, port: MemoryPort) -> None:
    await port.aclose()
    await rig.settle()


class Silent(MemoryPort):
    """A port to whose other end nobody comes."""

    async def wait_connected(self) -> None:
        await trio.sleep_forever()


def silent(port: MemoryPort) -> MemoryPort:
    return Silent(port.url, 0, port._inbox, port._outbox)


def is_alone(rig: Rig) -> bool:
    """Whether one guest serves, and nothing is left of another."""
    loop = rig.loop
    roles = sorted(link.role_name for link in loop.links)
    return loop.proxy.mode == "solo" and loop.secondary is None and roles == ["client", "lost", "primary"]


@pytest.mark.parametrize("lost", ["primary", "secondary"])
async def test_a_guest_that_runs_alone_is_protected_again(mock_clock: MockClock, lost: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        dead, left = (rig.primary, rig.secondary) if lost == "primary" else (rig.secondary, rig.primary)
        await kill(rig, dead)
        assert is_alone(rig)
        seen(rig.client)
        async with Newcomer(rig).joining() as new:
            assert new.ended.is_set()
        assert new.error is None
        assert rig.backend.calls[-2:] == [f"protect {lost} memory:third", "request 2"]
        assert rig.loop.proxy.protected
        assert rig.loop.links[PRIMARY if lost == "primary" else SECONDARY].role == SECONDARY
        assert [event for event in rig.loop.events if isinstance(event, SecondaryJoined)] == [
            SecondaryJoined(trio.current_time(), lost, "memory:third")
        ]
        assert rig.loop.measures.joined == 1

        # Compared, and mirrored.
        said = rig.talk.primary.datagram(b"said by both")
        await rig.send(left, said)
        assert seen(rig.client) == []
        await rig.send(new.far, rig.talk.secondary.datagram(b"said by both"))
        assert seen(rig.client) == [said.data]
        question = rig.talk.client.datagram(b"to both")
        await rig.send(rig.client, question)
        assert seen(left)[-1] == seen(new.far)[-1] == question.data

        # And able to take over.
        await kill(rig, left)
        assert rig.loop.primary.port is new.near
        assert rig.loop.primary.name == lost
    assert rig.error is None
    with pytest.raises(PortClosed):
        new.near.drain()  # the loop opened it, so it has closed it


async def test_one_life_after_the_other(mock_clock: MockClock) -> None:
    """Primaries die, each successor gets a new secondary; then secondaries do."""
    rig = Rig(mock_clock)
    async with rig.running():
        left, other = rig.primary, rig.secondary
        for count in range(6):
            if count < 3:
                await kill(rig, left)
                left = other
            else:
                await kill(rig, other)
            assert is_alone(rig)
            async with Newcomer(rig, f"guest{count}").joining() as new:
                pass
            assert new.error is None
            other = new.far
            assert rig.loop.proxy.protected
            assert sorted(link.name for link in rig.loop.links) == ["client", "primary", "secondary"]
            seen(rig.client)
            said = [rig.talk.primary.datagram(b"%d" % count), rig.talk.secondary.datagram(b"%d" % count)]
            await rig.send(left, said[0])
            await rig.send(other, said[1])
            assert seen(rig.client) == [said[0].data]
        assert rig.loop.proxy.counters.promotions == 3
        assert rig.loop.proxy.counters.secondaries_lost == 3
        assert rig.loop.measures.joined == 6
    assert rig.error is None


async def test_block_ends_with_the_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, on_secondary_loss="block"))
    async with rig.running():
        await kill(rig, rig.secondary)
        held = rig.talk.primary.datagram(b"held")
        await rig.send(rig.primary, held)
        assert seen(rig.client) == []
        async with Newcomer(rig).joining():
            pass
        assert seen(rig.client) == [held.data]


async def test_the_guest_serves_while_its_secondary_is_being_made(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        made = trio.Event()
        rig.backend.on_protect = made.wait
        async with Newcomer(rig).joining() as new:
            alone = rig.talk.primary.datagram(b"alone")
            await rig.send(rig.primary, alone)
            assert seen(rig.client) == [alone.data]
            await rig.send(new.far, rig.talk.secondary.datagram(b"booting"))
            await rig.send(rig.client, rig.talk.client.datagram(b"hello"))
            assert seen(new.far) == []
            await rig.jump(3600)  # it may take as long as it takes
            made.set()
        assert new.error is None
        # What it said before it was the primary's copy is nobody's.
        assert rig.loop.proxy.counters.received[SECONDARY] == 0


# Where the guest that is left speaks past the proxy


class FilterRig(Rig):
    """Between QEMU's filters, with a backend that puts a guest behind them again."""

    def __init__(self, clock: MockClock) -> None:
        super().__init__(clock, replace(SETTINGS, mirror=False, rewrite=False))
        self.backend.on_promote = self._lose_filters
        self.backend.on_protect = self._restore_filters

    async def _lose_filters(self) -> None:
        self.backend.releases_by_port = True

    async def _restore_filters(self) -> None:
        if self.backend.releases_by_port:
            await self.backend.connect_client()
            self.backend.releases_by_port = False

    async def say(self, *ports: MemoryPort) -> bytes:
        """Let guests say the same, the primary first; gives its frame."""
        said = rig_data(self)
        for port in ports:
            await self.send(port, said)
        return said.data


def rig_data(rig: Rig) -> Packet:
    return rig.talk.secondary.data(b"in the middle of a connection")


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_released_goes_out_by_the_client_s_port_again(
    mock_clock: MockClock, elsewhere: bool
) -> None:
    rig = FilterRig(mock_clock)
    async with rig.running():
        await rig.say(rig.primary, rig.secondary)
        seen(rig.client)
        left = rig.secondary
        await kill(rig, rig.primary)
        seen(left)  # once more, what the client may not have got
        rig_data(rig)  # past the proxy
        near, client = memory_pair(name="elsewhere") if elsewhere else (None, rig.client)
        await client.open()
        async with Newcomer(rig).joining(client=near) as new:
            pass
        assert new.error is None
        assert rig.loop.proxy.protected
        said = rig_data(rig)
        await rig.send(left, said)
        assert seen(client) == []
        await rig.send(new.far, said)
        assert seen(client) == [said.data]
        assert seen(left) == []
        if elsewhere:
            assert rig.loop.client.port is near
            with pytest.raises(PortClosed):
                rig.ports[CLIENT].drain()
        # And then it dies, too.
        early = rig.talk.secondary.datagram(b"not matched yet")
        await rig.send(new.far, early)
        await kill(rig, left)
        assert seen(client) == []
        assert early.data in seen(new.far)
        async with Newcomer(rig, "fourth").joining() as fourth:
            pass
        assert fourth.error is None
        assert await rig.say(new.far, fourth.far) in seen(client)
    assert rig.error is None
    if near is not None:
        with pytest.raises(PortClosed):
            near.drain()  # the loop opened it, so it has closed it


async def test_nobody_is_where_the_client_s_port_is_to_be(mock_clock: MockClock) -> None:
    rig = FilterRig(mock_clock)
    near = silent(memory_pair(name="elsewhere")[0])
    async with rig.running():
        await kill(rig, rig.primary)
        async with Newcomer(rig).joining(client=near) as new:
            await rig.jump(PEER_LIMIT)
        assert new.why.startswith(
            "nobody is at the other end of memory:elsewhere within 10 s: what the guest"
        )
        assert is_alone(rig)
        assert rig.loop.client.port is rig.ports[CLIENT]
        async with Newcomer(rig, "fourth").joining() as fourth:
            pass
        assert fourth.error is None
    assert rig.error is None


async def test_a_client_s_port_that_did_not_go_is_not_replaced(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    near, _ = memory_pair(name="elsewhere")
    async with rig.running():
        await kill(rig, rig.primary)
        async with Newcomer(rig).joining(client=near) as new:
            pass
        assert new.why == "the client's port (memory:client) did not go: leave it"
        assert rig.backend.calls[-1] == "promote secondary"
        assert is_alone(rig)


# What is refused


async def test_there_is_a_secondary(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        async with Newcomer(rig).joining() as new:
            pass
        assert new.why == "there is a secondary, on port memory:secondary (mode protect)"
        assert rig.loop.proxy.protected
        assert rig.backend.calls == ["request 1"]


async def test_one_at_a_time(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        made = trio.Event()
        rig.backend.on_protect = made.wait
        async with Newcomer(rig).joining() as first:
            await rig.jump(7)
            async with Newcomer(rig, "fourth").joining() as second:
                pass
            assert second.why == "port memory:third is being attached already, for 7 s"
            made.set()
        assert first.error is None
        assert rig.loop.proxy.protected


async def test_a_backend_that_cannot_is_not_asked(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, backend=Scripted(replace(ABLE, can_protect=False)))
    async with rig.running():
        await kill(rig, rig.secondary)
        async with Newcomer(rig).joining() as new:
            pass
        assert "cannot take a new secondary while it runs" in new.why
        assert rig.backend.calls == ["request 1", "abandon secondary"]
        assert is_alone(rig)


async def test_a_backend_that_has_ended_is_not_asked(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        rig.backend.end.set()
        await rig.settle()
        async with Newcomer(rig).joining() as new:
            pass
        assert new.why == "the checkpointer has ended (its run() returned): start again"


async def test_not_while_it_stops(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.primary)
        made = trio.Event()
        rig.backend.on_protect = made.wait
        async with Newcomer(rig).joining() as new:
            rig.loop.stop()
        assert new.why in ("the proxy is stopping", "the proxy has ended")
        assert rig.backend.cancelled == ["protect primary memory:third"]


async def test_what_stops_takes_nobody_new(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, on_secondary_loss="block"))
    async with rig.running():
        await kill(rig, rig.secondary)
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held, so that stopping takes a while"))
        rig.loop.stop()
        async with Newcomer(rig).joining() as new:
            pass
        assert new.why == "the proxy is stopping"


# What fails in the middle


async def refuse() -> None:
    await trio.lowlevel.checkpoint()
    raise ProtectionFailed("the new guest does not answer")


async def burst() -> None:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("a bug\nin two lines")


@pytest.mark.parametrize(
    ("script", "words"),
    [(refuse, "the new guest does not answer"), (burst, "RuntimeError: a bug in two lines")],
)
async def test_a_pair_that_cannot_be_made_leaves_the_guest_alone(
    mock_clock: MockClock, script: Callable[[], Awaitable[None]], words: str
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.primary)
        seen(rig.client)
        rig.backend.on_protect = script
        async with Newcomer(rig).joining() as new:
            pass
        assert new.why == words
        assert is_alone(rig)
        with pytest.raises(PortClosed):
            new.near.drain()
        alone = rig.talk.secondary.datagram(b"alone")
        await rig.send(rig.secondary, alone)
        assert seen(rig.client) == [alone.data]
        # Another one may be luckier.
        rig.backend.on_protect = trio.lowlevel.checkpoint
        async with Newcomer(rig, "fourth").joining() as new:
            pass
        assert new.error is None
        assert rig.loop.proxy.protected


async def test_a_port_that_cannot_be_opened(mock_clock: MockClock) -> None:
    class Missing(MemoryPort):
        async def open(self) -> None:
            await trio.lowlevel.checkpoint()
            raise PortUnavailable("memory:third: no such interface")

    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        new = Newcomer(rig)
        new.near = Missing(new.near.url, 0, new.near._inbox, new.near._outbox)
        async with new.joining():
            pass
        assert new.why == "memory:third: no such interface"
        assert is_alone(rig)


async def test_a_port_without_another_end(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        new = Newcomer(rig)
        new.near = silent(new.near)
        async with new.joining():
            await rig.jump(PEER_LIMIT)
        assert new.why == (
            "nobody is at the other end of memory:third within 10 s: start the new guest first"
        )
        assert rig.backend.calls[-1] == "abandon secondary"
        assert is_alone(rig)


@pytest.mark.parametrize("where", ["making the pair", "first commit"])
async def test_a_guest_that_never_answers(mock_clock: MockClock, where: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        if where == "first commit":
            rig.backend.on_request = hang
        else:
            rig.backend.on_protect = hang
        async with Newcomer(rig).joining(patience=5) as new:
            held = rig.talk.primary.datagram(b"held until it is known")
            await rig.send(rig.primary, held)
            assert len(seen(rig.client)) == (where == "making the pair")
            await rig.jump(5)
        assert new.why == "not done within 5 s"
        await rig.settle()
        assert is_alone(rig)
        assert len(seen(rig.client)) == (where == "first commit")
        # What may have been made of it is undone by the backend, as after any loss.
        abandoned = rig.backend.calls[-1] == "abandon secondary"
        assert abandoned == (where == "first commit")
        assert len(rig.backend.cancelled) == 1


async def test_a_first_checkpoint_that_fails_too_often(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def fail(request: object) -> None:
        await rig.backend.handlers.failed(2, "no route to the new host", secondary_intact=True)

    async with rig.running():
        await kill(rig, rig.secondary)
        rig.backend.on_request = fail
        async with Newcomer(rig).joining() as new:
            await rig.jump(SETTINGS.retry_interval)
            assert not new.ended.is_set()
            await rig.jump(SETTINGS.retry_interval)
        assert new.why.endswith("lost before the first commit: it did not complete a checkpoint")
        assert is_alone(rig)
        assert rig.backend.calls[-1] == "abandon secondary"


@pytest.mark.parametrize("how", ["port", "backend"])
@pytest.mark.parametrize("where", ["making the pair", "first commit"])
async def test_the_new_guest_dies(mock_clock: MockClock, where: str, how: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.primary)
        made = trio.Event()
        if where == "first commit":
            rig.backend.on_request = hang
        else:
            rig.backend.on_protect = made.wait
        async with Newcomer(rig).joining() as new:
            if how == "port":
                await kill(rig, new.far)
            else:
                await rig.backend.handlers.guest_lost(SECONDARY, "no heartbeat")
            await rig.settle()
            made.set()  # a backend that has not noticed
        if where == "making the pair" and how == "backend":
            assert new.why == "the checkpointer reports that the new guest is gone: no heartbeat"
        else:
            assert "was lost before the first commit: " in new.why
        await rig.settle()
        assert is_alone(rig)
        assert not rig.ended.is_set()


@pytest.mark.parametrize("where", ["making the pair", "first commit"])
async def test_the_guest_that_serves_dies(mock_clock: MockClock, where: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.primary)
        if where == "first commit":
            rig.backend.on_request = hang
        else:
            rig.backend.on_protect = hang
        async with Newcomer(rig).joining() as new:
            await kill(rig, rig.secondary)
            await rig.ended.wait()
        assert new.why == "the proxy has ended"
    assert isinstance(rig.error, PortClosed)
    assert "nothing can take over" in str(rig.error)
    with pytest.raises(PortClosed):
        new.near.drain()


@pytest.mark.parametrize("farewell", [trio.lowlevel.checkpoint, burst])
async def test_another_mode_while_the_pair_is_made(
    mock_clock: MockClock, farewell: Callable[[], Awaitable[None]]
) -> None:
    """The later decision counts."""
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        made = trio.Event()
        rig.backend.on_protect = made.wait
        rig.backend.on_abandon = farewell
        async with Newcomer(rig).joining() as new:
            await rig.loop.set_mode("bypass")
            made.set()
        assert new.why == "mode bypass was chosen meanwhile"
        assert rig.backend.calls[-1] == "abandon secondary"
        assert rig.loop.secondary is None
        with pytest.raises(PortClosed):
            new.near.drain()
        # From there, too, one may protect.
        rig.backend.on_protect = trio.lowlevel.checkpoint
        async with Newcomer(rig, "fourth").joining() as new:
            pass
        assert new.error is None
        assert rig.loop.proxy.protected


async def test_another_mode_before_the_first_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        rig.backend.on_request = hang
        async with Newcomer(rig).joining() as new:
            rig.loop.proxy.set_mode("bypass", trio.current_time())
            rig.loop.perform()
        assert new.why == "mode bypass was chosen before the first commit"


async def test_nothing_is_promoted_before_the_first_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await kill(rig, rig.secondary)
        answer = trio.Event()

        async def slowly(request: object) -> None:
            await answer.wait()
            await rig.backend.commit(request)  # type: ignore[arg-type]  # a CheckpointRequest

        rig.backend.on_request = slowly
        async with Newcomer(rig).joining() as new:
            with pytest.raises(PromotionFailed, match="not equal to the primary"):
                await rig.loop.failover.promote("asked for by the operator")
            answer.set()
        assert new.error is None
        await rig.loop.failover.promote("asked for by the operator")
        assert rig.loop.primary.port is new.near


# The other guest's funeral comes first


async def test_the_backend_has_done_with_the_old_pair_first(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        buried = trio.Event()
        rig.backend.on_abandon = buried.wait
        await kill(rig, rig.secondary)
        async with Newcomer(rig).joining() as new:
            assert rig.backend.calls == ["request 1", "abandon secondary"]
            buried.set()
            await rig.settle()
        assert new.error is None
        assert rig.backend.calls[2:] == ["protect secondary memory:third", "request 2"]


async def test_what_is_said_late_of_the_old_secondary_is_not_said_of_the_new_one(
    mock_clock: MockClock,
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        fenced = trio.Event()
        rig.backend.on_abandon = fenced.wait
        await kill(rig, rig.secondary)
        async with Newcomer(rig).joining() as new:
            await rig.backend.handlers.guest_lost(SECONDARY, "nobody answers there any more")
            fenced.set()
        assert new.error is None
        assert rig.loop.proxy.protected


async def test_a_fence_that_takes_for_ever_does_not_stop_it(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_abandon = hang
        await kill(rig, rig.secondary)
        async with Newcomer(rig).joining() as new:
            await rig.jump(FENCING_LIMIT)
        assert new.error is None
        assert rig.loop.proxy.protected


async def test_it_waits_for_a_promotion(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        await kill(rig, rig.primary)
        async with Newcomer(rig).joining() as new:
            assert not new.ended.is_set()
            fenced.set()
        assert new.error is None
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.proxy.protected
