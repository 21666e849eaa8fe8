import msgspec
from trio.testing import MockClock

from colo_compare.page.samples import KEPT, Samples
from tests.rig import Rig


async def test_a_sample_has_what_passed_each_port(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        samples = Samples(lambda: 1000.0)
        samples.take(rig.loop)
        await rig.send(rig.client, rig.talk.client.datagram(b"question"))
        samples.take(rig.loop)
        before, after = samples.since(0)
        assert (before.number, after.number, after.time) == (1, 2, 1000.0)
        assert after.ports["client"].received_frames - before.ports["client"].received_frames == 1
        assert after.ports["primary"].sent_frames - before.ports["primary"].sent_frames == 1
        assert sum(after.hold) == rig.loop.proxy.counters.hold_time.total()
        assert after.hold is not rig.loop.proxy.counters.hold_time.counts


async def test_only_the_last_ones_are_kept(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        samples = Samples()
        assert samples.since(0) == []
        for _ in range(KEPT + 5):
            samples.take(rig.loop)
        assert [sample.number for sample in samples.since(KEPT + 2)] == [KEPT + 3, KEPT + 4, KEPT + 5]
        assert samples.since(KEPT + 5) == samples.since(KEPT + 50) == []
        assert [sample.number for sample in samples.since(0)] == list(range(6, KEPT + 6))


async def test_a_sample_is_small_on_the_wire(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        samples = Samples()
        samples.take(rig.loop)
        assert len(msgspec.json.encode(samples.since(0))) < 400
