"""Real guest processes, real sockets, a real page table."""

import os
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from colo_compare.checkpoint.contract import Checkpointer, NewSecondary
from colo_compare.checkpoint.memory.backend import MemoryCheckpointer
from colo_compare.checkpoint.memory.messages import APPLY
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.checkpoint.memory.states import AT_APPLYING, Sends
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed, ProtectionFailed
from colo_compare.quantities import Duration, Size
from colo_compare.testing.checkpointer_contract import check_checkpointer
from tests.checkpoint.memory.conftest import PAGES, Pair, Start, Together, receiving

GOOD = ["paused", "loaded", "committed"]


async def test_it_fulfils_the_contract(start: Start, tmp_path: Path) -> None:
    """Each part of the check begins with a new backend: so it gets a new pair of guests each time."""
    endpoint = f"unix:{tmp_path}/receiver.sock"
    count = 0
    async with trio.open_nursery() as nursery:

        async def keep_receiving(
            path: str, endpoint: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            async with receiving(path, endpoint):
                task_status.started()
                await trio.sleep_forever()

        pairs = []

        async def another(backend: Checkpointer) -> NewSecondary:
            nonlocal count
            count += 1
            guest, endpoint = start(f"another{count}"), f"unix:{tmp_path}/another{count}.receiver"
            await nursery.start(keep_receiving, guest.path, endpoint)
            return NewSecondary(
                "primary", "packet:new", msgspec.structs.replace(backend.options, secondary=endpoint)
            )

        for count in range(9):
            primary, secondary = start(f"primary{count}"), start(f"secondary{count}")
            endpoint = f"unix:{tmp_path}/receiver{count}.sock"
            await nursery.start(keep_receiving, secondary.path, endpoint)
            pairs.append(MemoryOptions(primary=primary.path, secondary=endpoint))
        await check_checkpointer(
            lambda: MemoryCheckpointer(pairs.pop()),
            make_unable=lambda: MemoryCheckpointer(
                MemoryOptions(primary=str(tmp_path / "none"), secondary=endpoint)
            ),
            new_secondary=another,
        )
        assert len(pairs) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
async def test_each_checkpoint_makes_the_secondary_equal(
    together: Together, channels: int, plain: bool
) -> None:
    async with together(channels=channels, plain=plain) as pair:
        pair.primary.tell("write 0 300 7")
        pair.primary.tell("device primary 100")
        assert await pair.checkpoint() == GOOD
        assert pair.primary.digest == pair.secondary.digest
        pair.primary.tell("write 10 5 9")
        pair.primary.tell("device again 300000")
        pair.secondary.tell("write 500 3 1")
        pair.secondary.tell("write 12 1 1")
        assert await pair.checkpoint() == GOOD
        assert pair.primary.digest == pair.secondary.digest
        assert pair.reports.figures.pages == 5
        assert pair.reports.figures.bytes is not None
        assert pair.reports.figures.bytes > 5 * 4096 + 5 * 300000
        assert pair.backend.sender is not None
        assert pair.backend.sender.outgoing.pages_applied == 8
        figures = pair.backend.figures()
        name = "compare" if plain else "pagemap"
        assert (figures["primary_tracker"], figures["secondary_tracker"]) == (name, name)
        assert (figures["state"], figures["committed"], figures["last_pages"]) == ("idle", 2, 5)


async def test_a_checkpoint_costs_what_was_written_not_what_there_is(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.primary.tell("scribble 3 4 100 9")
        await pair.checkpoint()
        assert pair.reports.figures.pages == 4
        await pair.checkpoint()
        assert pair.reports.figures.pages == 0


@pytest.mark.parametrize("plain", [False, True])
async def test_a_sparse_guest_stays_sparse(together: Together, plain: bool) -> None:
    async with together(channels=2, plain=plain) as pair:
        pair.primary.tell("write 300 40 7")
        pair.secondary.tell("write 100 100 8")
        await pair.checkpoint()
        assert pair.reports.figures.bytes is not None
        assert pair.reports.figures.bytes < 41 * 4096
        assert (pair.primary.memory, pair.secondary.memory) == (40, 40)
        pair.primary.tell("write 320 20 0")
        await pair.checkpoint()
        assert (pair.primary.memory, pair.secondary.memory) == (40, 20)
        assert pair.primary.digest == pair.secondary.digest


async def test_quiet_pages_go_before_the_pause(together: Together) -> None:
    async with together(
        channels=2, presend_rate=Size(1 << 30), presend_interval=Duration(0.001), compression=1
    ) as pair:
        await pair.checkpoint()
        pair.primary.tell("write 0 200 3")
        with trio.fail_after(5):
            while sum(pages for pages, _ in pair.backend.presented) < 200:  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.001)
        assert await pair.checkpoint() == GOOD
        assert pair.reports.figures.pages == 0
        assert pair.reports.figures.detail is not None
        assert pair.reports.figures.detail["pages_before"] == 200
        assert int(pair.reports.figures.detail["bytes_before"]) < 200 * 4096 / 10
        assert int(pair.reports.figures.detail["channel_1_bytes_before"]) > 0
        assert pair.primary.digest == pair.secondary.digest


async def test_a_cancelled_request_leaves_both_guests_running(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.primary.tell("write 1 1 1")
        before = pair.secondary.digest
        with trio.CancelScope() as scope:
            pair.reports.on["paused"] = scope.cancel
            await pair.checkpoint()
        assert pair.reports.seen == ["paused"]
        assert pair.secondary.digest == before
        assert pair.primary.tell("write 2 1 2") == "done"
        pair.reports.on.clear()
        assert await pair.checkpoint() == GOOD
        assert pair.primary.digest == pair.secondary.digest


async def test_a_decision_is_carried_out_when_the_request_is_cancelled_after_it(together: Together) -> None:
    async with together() as pair:
        pair.primary.tell("write 1 1 1")
        with trio.CancelScope() as scope:
            pair.reports.on["loaded"] = scope.cancel
            await pair.checkpoint()
        assert pair.reports.seen == ["paused", "loaded"]
        assert pair.primary.digest == pair.secondary.digest
        pair.reports.on.clear()
        assert await pair.checkpoint() == GOOD


async def test_a_broken_connection_leaves_the_old_state_and_is_made_again(together: Together) -> None:
    async with together(channels=2) as pair:
        await pair.checkpoint()
        before = pair.secondary.digest
        pair.primary.tell("write 1 100 1")

        def cut() -> None:
            sender = pair.backend.sender
            assert sender is not None
            sender.outgoing.broke("cut by the test")
            sender.say([])

        pair.reports.on["paused"] = cut
        assert await pair.checkpoint() == ["paused", "failed, intact"]
        assert "cut by the test" in pair.reports.details[0]
        assert pair.secondary.digest == before
        pair.reports.on.clear()
        assert await pair.checkpoint() == GOOD
        assert pair.primary.digest == pair.secondary.digest
        assert pair.reports.figures.pages == PAGES  # all of it: nobody knows what was lost


async def test_an_answer_that_is_lost_is_asked_for_in_a_new_session(
    together: Together, tmp_path: Path
) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.primary.tell("write 1 1 1")
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        pair.secondary.tell(f"gate {gate}")
        results: list[str] = []

        async def ask() -> None:
            results.extend(await pair.checkpoint())

        sender = pair.backend.sender
        assert sender is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            # Opens when the guest does: not before APPLY has arrived, so its answer is what gets lost.
            gate_end = await trio.to_thread.run_sync(
                partial(os.open, gate, os.O_WRONLY), abandon_on_cancel=True
            )
            assert sender.outgoing.state == AT_APPLYING
            sender.outgoing.broke("cut by the test")
            sender.say([])
            os.close(gate_end)
        assert results == GOOD
        assert sender.outgoing.undecided
        pair.secondary.tell("gate /dev/null")
        assert pair.primary.digest == pair.secondary.digest
        assert await pair.checkpoint() == GOOD


async def test_a_decision_that_is_lost_leaves_the_old_state(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        before = pair.secondary.digest
        pair.primary.tell("write 1 1 1")
        sender = pair.backend.sender
        assert sender is not None
        say = sender.say

        def lose_apply(sends: Sends) -> None:
            if any(message.kind == APPLY for _, message in sends):
                sender.outgoing.broke("cut by the test")
                sends = []
            say(sends)

        sender.say = lose_apply  # type: ignore[method-assign]
        assert await pair.checkpoint() == ["paused", "failed, intact"]
        assert sender.outgoing.undecided
        assert pair.secondary.digest == before
        assert await pair.checkpoint() == GOOD
        assert pair.primary.digest == pair.secondary.digest


async def test_a_primary_that_dies_when_all_is_sent_leaves_its_last_state(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.primary.tell("write 1 1 1")
        digest = pair.primary.digest
        pair.reports.on["paused"] = pair.primary.stop
        assert await pair.checkpoint() == GOOD
        assert pair.secondary.digest == digest
        await pair.reports.lost_event.wait()
        assert pair.reports.lost[0][0] == PRIMARY


async def test_a_primary_that_hangs_is_killed_once_the_secondary_can_take_over(together: Together) -> None:
    async with together(timeout=Duration(0.2)) as pair:
        await pair.checkpoint()
        pair.primary.tell("hang")
        assert await pair.checkpoint() == ["failed, intact"]
        assert "did not stop within 0.2 s" in pair.reports.details[0]
        await pair.reports.lost_event.wait()
        assert pair.reports.lost[0][0] == PRIMARY
        pair.primary.process.wait()
        assert not pair.primary.alive


async def test_a_primary_that_hangs_is_found_without_a_checkpoint(together: Together) -> None:
    async with together(timeout=Duration(0.2)) as pair:
        await pair.checkpoint()
        pair.primary.process.send_signal(signal.SIGSTOP)
        await pair.reports.lost_event.wait()
        assert pair.reports.lost[0][0] == PRIMARY
        pair.primary.process.wait()


async def test_a_secondary_that_hangs_is_found_without_a_checkpoint(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.secondary.process.send_signal(signal.SIGSTOP)
        await pair.reports.lost_event.wait()
        assert pair.reports.lost[0][0] == SECONDARY
        assert "the secondary guest hangs" in pair.reports.lost[0][1]
        pair.secondary.process.wait()


async def test_a_secondary_that_cannot_load_is_lost(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.secondary.tell("spoil")
        assert await pair.checkpoint() == ["paused", "failed, spoilt"]
        assert "this state makes no sense" in pair.reports.details[0]
        await pair.receiving.ended.wait()
        assert "no complete state any more" in str(pair.receiving.error)


async def test_the_death_of_the_secondary_is_told(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.secondary.stop()
        with trio.fail_after(5):
            await pair.reports.lost_event.wait()
        why = "the secondary guest is gone: its process has ended"
        assert pair.reports.lost == [(SECONDARY, why)]
        await pair.receiving.ended.wait()
        assert str(pair.receiving.error) == why


async def test_a_receiver_that_is_gone_is_a_lost_secondary(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.receiving.scope.cancel()
        with trio.fail_after(5):
            await pair.reports.lost_event.wait()
        assert pair.reports.lost[0][0] == SECONDARY
        assert "no secondary listens there" in pair.reports.lost[0][1]
        assert pair.secondary.tell("write 1 1 1") == "done"  # the guest runs on
        assert not pair.backend.ready
        with pytest.raises(CheckpointerError, match="has no pair"):
            await pair.checkpoint()


async def test_a_promotion_kills_the_primary_first(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        await pair.backend.promote(SECONDARY)
        pair.primary.process.wait()
        assert pair.secondary.tell("write 1 1 1") == "done"
        assert not pair.backend.ready
        assert pair.reports.lost == []
        with pytest.raises(PromotionFailed, match="primary is the primary"):
            await pair.backend.promote(PRIMARY)


async def test_abandoning_kills_that_guest(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        await pair.backend.abandon(SECONDARY)
        pair.secondary.process.wait()
        assert pair.primary.tell("write 1 1 1") == "done"
        assert pair.reports.lost == []


async def test_a_secondary_that_was_given_up_is_not_reported_later(together: Together) -> None:
    async with together() as pair:
        await pair.checkpoint()
        pair.receiving.scope.cancel()
        with pytest.raises(CheckpointerError, match=r"no connection|the session .* broke"):
            await pair.backend.abandon(SECONDARY)
        assert pair.backend.figures()["state"] == "the secondary was fenced"
        assert pair.reports.lost == []


def newcomer(pair: Pair, endpoint: str, **changes: object) -> NewSecondary:
    """Give what the proxy says of a new secondary: the options in force, and what the operator changes."""
    options = msgspec.structs.replace(pair.backend.options, secondary=endpoint, **changes)
    return NewSecondary("primary", "packet:third", options)


async def test_each_survivor_becomes_the_primary_of_a_new_pair(
    together: Together, start: Start, tmp_path: Path
) -> None:
    async with together() as pair, AsyncExitStack() as stack:
        pair.primary.tell("write 1 1 1")
        await pair.checkpoint()
        survivor = pair.secondary
        for count in range(3):
            await pair.backend.promote(SECONDARY)
            assert pair.backend.lost
            assert pair.backend.options.primary == survivor.path  # its receiver has told
            guest, endpoint = start(f"guest{count}"), f"unix:{tmp_path}/receiver{count}.sock"
            await stack.enter_async_context(receiving(guest.path, endpoint))
            await pair.backend.protect(newcomer(pair, endpoint))
            assert pair.backend.ready
            survivor.tell(f"write {count} 3 1")
            assert await pair.checkpoint() == GOOD
            assert pair.reports.figures.pages == 3  # all others went before the pause
            assert survivor.digest == guest.digest
            survivor = guest
        assert pair.reports.lost == []


async def test_a_primary_gets_one_new_secondary_after_the_other(
    together: Together, start: Start, tmp_path: Path
) -> None:
    async with together() as pair, AsyncExitStack() as stack:
        await pair.checkpoint()
        guest = pair.secondary
        for count in range(3):
            if count == 1:
                await pair.backend.abandon(SECONDARY)
            else:
                pair.reports.lost_event = trio.Event()
                guest.stop()
                await pair.reports.lost_event.wait()
            assert not pair.backend.ready
            guest, endpoint = start(f"guest{count}"), f"unix:{tmp_path}/receiver{count}.sock"
            await stack.enter_async_context(receiving(guest.path, endpoint))
            await pair.backend.protect(newcomer(pair, endpoint, channels=2))
            pair.primary.tell(f"write {count} 3 1")
            assert await pair.checkpoint() == GOOD
            assert pair.primary.digest == guest.digest


async def test_only_the_guest_that_serves_can_be_the_primary(
    together: Together, start: Start, tmp_path: Path
) -> None:
    """A guest that was started again where the dead one was has a state that no client has seen."""
    async with together() as pair:
        await pair.checkpoint()
        await pair.backend.promote(SECONDARY)
        fresh, third = start("fresh"), start("third")
        endpoint = f"unix:{tmp_path}/again.sock"
        async with receiving(third.path, endpoint):
            with pytest.raises(ProtectionFailed, match="not the guest that serves the clients"):
                await pair.backend.protect(newcomer(pair, endpoint, primary=fresh.path))
            assert not pair.backend.ready
            await pair.backend.protect(newcomer(pair, endpoint))
            assert await pair.checkpoint() == GOOD
            assert pair.secondary.digest == third.digest


async def test_a_new_secondary_that_is_not_there(together: Together, start: Start, tmp_path: Path) -> None:
    async with together() as pair:
        await pair.checkpoint()
        await pair.backend.abandon(SECONDARY)
        options = pair.backend.options
        with pytest.raises(ProtectionFailed, match="no secondary listens there"):
            await pair.backend.protect(newcomer(pair, f"unix:{tmp_path}/nobody.sock"))
        with pytest.raises(ConfigError, match="secondary: "):
            await pair.backend.protect(newcomer(pair, "nowhere"))
        assert pair.backend.options is options
        assert not pair.backend.ready
        assert pair.backend.figures()["state"] == "the secondary was fenced"
        assert pair.primary.tell("write 1 1 1") == "done"
        with pytest.raises(CheckpointerError, match="has no pair"):
            await pair.checkpoint()


async def test_a_new_pair_may_be_given_up_while_it_is_made(
    together: Together, start: Start, tmp_path: Path
) -> None:
    async with together() as pair:
        await pair.checkpoint()
        await pair.backend.abandon(SECONDARY)
        silent = trio.socket.socket(socket.AF_UNIX)
        await silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.backend.protect, newcomer(pair, f"unix:{tmp_path}/silent.sock"))
                connection, _ = await silent.accept()
                scope.cancel()
        connection.close()
        silent.close()
        third, endpoint = start("third"), f"unix:{tmp_path}/again.sock"
        async with receiving(third.path, endpoint):
            await pair.backend.protect(newcomer(pair, endpoint))
            assert await pair.checkpoint() == GOOD
            assert pair.primary.digest == third.digest


@pytest.mark.parametrize("key", ["presend_interval", "timeout", "reconnect_timeout"])
def test_times_of_no_length_are_refused(key: str) -> None:
    options = MemoryOptions(primary="/p", secondary="unix:/s", **{key: Duration(0)})  # type: ignore[arg-type]  # by name
    with pytest.raises(ConfigError, match=rf"\$\.checkpointer\.{key}: must be longer"):
        MemoryCheckpointer(options)


@pytest.mark.parametrize(
    ("endpoint", "words"), [("udp:host:1", "is no endpoint"), ("tls:host:1", "needs tls_dir")]
)
def test_an_endpoint_that_cannot_be_meant_is_refused(endpoint: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MemoryCheckpointer(MemoryOptions(primary="/p", secondary=endpoint))


async def test_the_primary_of_a_new_pair_is_not_killed_before_anybody_could_take_over(
    together: Together, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the pair before it had committed is nothing that this secondary has."""
    async with together(timeout=Duration(0.3)) as pair:
        await pair.checkpoint()
        await pair.backend.abandon(SECONDARY)
        third, endpoint = start("third"), f"unix:{tmp_path}/again.sock"
        async with receiving(third.path, endpoint):
            await pair.backend.protect(newcomer(pair, endpoint))
            pair.primary.process.send_signal(signal.SIGSTOP)
            assert await pair.checkpoint() == ["failed, intact"]
            assert "the secondary could not take over yet" in caplog.text
            assert pair.primary.alive
            pair.primary.process.send_signal(signal.SIGCONT)
