"""Does this workload suit COLO? A survey judged, with its reasons and what would help."""

from typing import Final

import msgspec

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.operate import causes
from colo_compare.suitability.survey import Hold, Pattern, Survey

SUITS: Final = "suits"
PARTLY: Final = "partly"
DOES_NOT: Final = "does_not"
UNKNOWN: Final = "unknown"

HEADLINES: Final = {
    SUITS: "SUITS COLO",
    PARTLY: "SUITS COLO WITH RESERVATIONS",
    DOES_NOT: "DOES NOT SUIT COLO",
    UNKNOWN: "CANNOT BE TOLD",
}

# The share of time that the primary would stand still: what of it nobody notices, and from where on a plain
# virtual machine with periodic checkpoints would do as well.
LITTLE: Final = 0.01
MUCH: Final = 0.10
# Seconds, a bound of the histogram: where 1 % of the frames that wait do so longer, people notice.
LATE: Final = 0.256
ENOUGH_REQUESTS: Final = 20
ENOUGH_SECONDS: Final = 5.0
SILENT: Final = 0.5  # of the frames that the primary sends: a secondary that says less is no clone

_HELP: Final = {
    causes.TIMESTAMP: "the time of day is in what it says: leave it out (HTTP's Date), or let a proxy add it",
    causes.RANDOM: "random identifiers: leave them out, or derive them from the request",
    causes.NUMBER: "numbers that the guests count for themselves: process ids, requests, threads",
    causes.LENGTH: "one guest says more than the other: look at what the longer one has",
    causes.ORDER: "the guests do the same in another order: fewer threads or processors make them more alike",
    causes.ONE_SIDE: "the secondary does not say it in time: is it slower, stuck, or not a clone?",
    causes.ENDING: "the guests end connections at different moments: look at timeouts and limits",
    causes.OPTIONS: "the guests' TCP differs: the same sysctls on both, and no TCP-MD5, TCP-AO or MPTCP",
    causes.MID_STREAM: "connections were open before the proxy was there: this passes",
    causes.CONTENT: "the contents differ: `colo-compare explain --patterns` shows where",
    causes.UNEXAMINED: "too many divergences to look at each: `colo-compare explain --patterns`",
}
_TLS_HELP: Final = (
    "each TLS handshake costs a checkpoint, and nothing after it: keep connections open longer, "
    "or end TLS before the guest"
)


class Rates(msgspec.Struct):
    """Checkpoints, put in relation."""

    per_minute: float
    per_thousand: float | None  # requests; None where there were none
    standing_still: float  # share of time


class Waiting(msgspec.Struct):
    """What would have been held."""

    share: float  # of the primary's frames that are compared
    median: float  # seconds, an upper bound, over the frames that waited; math.inf beyond the last bound
    p99: float


class Verdict(msgspec.Struct):
    """The survey, and what follows from it."""

    grade: str  # SUITS, PARTLY, DOES_NOT or UNKNOWN
    headline: str
    reasons: list[str]
    advice: list[str]
    rates: Rates
    waiting: Waiting
    survey: Survey


def judge(survey: Survey) -> Verdict:
    """Judge a survey."""
    found = rates(survey.checkpoints, survey)
    waits = waiting(survey)
    missing = _missing(survey)
    if missing:
        grade, reasons = UNKNOWN, missing
    else:
        grade, reasons = _grade(found, waits, survey)
    return Verdict(grade, HEADLINES[grade], reasons, _advice(survey), found, waits, survey)


def rates(checkpoints: int, survey: Survey, requests: int | None = None) -> Rates:
    """Put a number of checkpoints in relation to the survey's time and requests (or to these)."""
    if requests is None:
        requests = sum(service.requests for service in survey.services)
    per_second = checkpoints / survey.seconds if survey.seconds else 0.0
    return Rates(
        per_minute=per_second * 60,
        per_thousand=checkpoints * 1000 / requests if requests else None,
        standing_still=min(per_second * survey.checkpoint_time, 1.0),
    )


def waiting(survey: Survey) -> Waiting:
    """Say what share of the frames would have waited, and for how long."""
    waited = sum(survey.hold.counts)
    share = min(waited / survey.compared, 1.0) if survey.compared else 0.0
    return Waiting(share, quantile(survey.hold, 0.5), quantile(survey.hold, 0.99))


def quantile(hold: Hold, share: float) -> float:
    """Give the bound below which this share of what waited lies, seconds; 0 where nothing waited."""
    wanted = share * sum(hold.counts)
    so_far = 0
    for bound, count in zip([*hold.bounds, float("inf")], hold.counts, strict=True):
        so_far += count
        if count and so_far >= wanted:
            return bound
    return 0.0


def _missing(survey: Survey) -> list[str]:
    requests = sum(service.requests for service in survey.services)
    if not survey.frames[SECONDARY]:
        return ["nothing came from the secondary: is it running, and does it get the client's frames?"]
    found = []
    if survey.seconds < ENOUGH_SECONDS:
        found.append(f"{survey.seconds:.0f} s are too short: {ENOUGH_SECONDS:g} at least, better minutes")
    if requests < ENOUGH_REQUESTS:
        found.append(f"{requests} requests are too few: {ENOUGH_REQUESTS} at least, of all kinds")
    if not found and survey.frames[SECONDARY] < SILENT * survey.frames[PRIMARY] and survey.divergences == 0:
        found.append(
            f"the secondary sent {survey.frames[SECONDARY]} frames, the primary {survey.frames[PRIMARY]}: "
            "what it did not say was not compared"
        )
    return found


def _grade(found: Rates, waits: Waiting, survey: Survey) -> tuple[str, list[str]]:
    reasons = []
    if survey.checkpoints == 0:
        grade = SUITS
        reasons.append(f"the guests said the same, in {survey.compared} frames that were compared")
    else:
        still = f"the primary would stand still for {found.standing_still:.2%} of the time"
        if found.standing_still < LITTLE:
            grade, judgement = SUITS, f"less than {LITTLE:.0%}"
        elif found.standing_still < MUCH:
            grade, judgement = PARTLY, f"{LITTLE:.0%} or more"
        else:
            grade, judgement = DOES_NOT, f"{MUCH:.0%} or more"
        reasons.append(f"{still}, which is {judgement}")
        reasons += [_told(pattern, survey) for pattern in survey.patterns[:3] if pattern.checkpoints]
    if waits.p99 > LATE:
        grade = PARTLY if grade == SUITS else grade
        reasons.append(f"the secondary is late: 1 % of what waits does so for over {LATE * 1000:g} ms")
    return grade, reasons


def _told(pattern: Pattern, survey: Survey) -> str:
    where = f" in {pattern.field}" if pattern.field else ""
    name = pattern.cause.replace("_", " ")
    return f"{pattern.checkpoints} of {survey.checkpoints} checkpoints: {pattern.service}, {name}{where}"


def _advice(survey: Survey) -> list[str]:
    """Give what would help most, first."""
    advice = []
    for pattern in survey.patterns:
        told = _TLS_HELP if pattern.text == causes.TLS else _HELP.get(pattern.cause, "")
        line = f"{pattern.service}{f', {pattern.field}' if pattern.field else ''}: {told}"
        if told and line not in advice:
            advice.append(line)
    return advice[:5]
