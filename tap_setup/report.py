"""What a command found and did, as text and as JSON."""

from dataclasses import dataclass, field

import msgspec

from tap_setup.deviations import EXISTS, Deviation


@dataclass(frozen=True)
class Change:
    """One thing that was done, or deliberately not done."""

    namespace: str | None
    link: str | None
    what: str


@dataclass
class Report:
    """What a command found and did, in order. It is filled while the command runs, so that after a failure
    it tells what exists.
    """

    links: int = 0  # looked at
    changes: list[Change] = field(default_factory=list)
    left: list[Change] = field(default_factory=list)  # not removed: it is not ours
    kept: list[Change] = field(default_factory=list)  # not removed although it is ours
    deviations: list[Deviation] = field(default_factory=list)
    error: str | None = None


def place(namespace: str | None, link: str | None) -> str:
    """Name a link or a namespace for people."""
    if link is None:
        return f"namespace {namespace}"
    return link if namespace is None else f"{link} in {namespace}"


def as_text(report: Report) -> str:
    """Give the report for people."""
    lines = [f"{place(change.namespace, change.link)}: {change.what}" for change in report.changes]
    lines += [f"{place(left.namespace, left.link)}: left, {left.what}" for left in report.left]
    lines += [f"{place(kept.namespace, kept.link)}: kept, {kept.what}" for kept in report.kept]
    for found in report.deviations:
        where = place(found.namespace, found.link)
        alone = "" if found.left_alone is None else f" (left alone: {found.left_alone})"
        lines.append(f"{where}: {_what(found)}{alone}")
        lines.append(f"    fix: {found.fix[0]}")
        lines += [f"         {command}" for command in found.fix[1:]]
    return "\n".join(lines)


def as_script(report: Report) -> str:
    """Give the commands that `create` stands for; what it would leave alone as comments."""
    lines = []
    for found in report.deviations:
        where = place(found.namespace, found.link)
        if found.left_alone is None:
            lines += [f"# {where}: {_what(found)}", *found.fix]
        else:
            lines.append(f"# {where}: {_what(found)}; left alone: {found.left_alone}")
    return "\n".join(lines) if lines else "# nothing to do"


def _what(found: Deviation) -> str:
    if found.property == EXISTS:
        return "does not exist"
    return f"{found.property} is {found.have}, wanted {found.want}"


def as_json(report: Report) -> str:
    """Give the report as one JSON object."""
    return msgspec.json.format(msgspec.json.encode(report)).decode()
