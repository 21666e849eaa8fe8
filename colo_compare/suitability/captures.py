"""A survey of two captures, offline: the same counting, on recorded frames and times."""

from colo_compare.core.counters import NOT_COMPARED
from colo_compare.core.sides import CLIENT, PRIMARY
from colo_compare.operate.divergences import Divergences
from colo_compare.replay.timeline import Timeline
from colo_compare.replay.verdict import judge
from colo_compare.suitability.survey import Hold, Survey, Surveyor
from colo_compare.wire.frame import parse_frame


def survey_captures(timeline: Timeline, compare_timeout: float, checkpoint_time: float) -> Survey:
    """Survey a timeline. Raises CaptureError where it cannot be used."""
    found = judge(timeline, compare_timeout)
    seconds = 0.0
    for at, _, _ in timeline:
        seconds = max(seconds, at)
    surveyor = Surveyor(checkpoint_time, 0.0, seconds)
    for _, side, data in timeline:
        surveyor.see(side, [parse_frame(data, 0, inbound=side == CLIENT)])
    began = timeline.start / 1e9
    now = began
    divergences = Divergences(lambda: now)
    for event in found.divergences:
        now = began + event.at
        divergences.note(event)
        record = divergences.get(event.id)
        assert record is not None
        surveyor.diverge(record, event.at)
    counters = found.counters
    compared = counters.received[PRIMARY] - counters.released[NOT_COMPARED]
    return surveyor.result(
        seconds, compared, Hold(counters.hold_time.bounds, list(counters.hold_time.counts))
    )
