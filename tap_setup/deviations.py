"""What is not as it was asked for, and how to put it right."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tap_setup import desired
from tap_setup.commands import make_commands, set_command, within
from tap_setup.desired import EXISTING, NONE, TAP, TAP_KEYS, Link
from tap_setup.host import LinkState, device_trouble
from tap_setup.record import MARK

EXISTS: Final = "exists"  # yes or no: the property of what is missing altogether


@dataclass(frozen=True)
class Deviation:
    """One property that is not as it was asked for."""

    namespace: str | None
    link: str | None  # None: the namespace itself
    property: str
    have: str
    want: str
    fix: tuple[str, ...]  # commands, or where there are none, words
    left_alone: str | None = None  # why `create` does not repair it; None: it does


def missing_namespace(namespace: str, *, declared: bool) -> Deviation:
    """Give the deviation of a namespace that does not exist."""
    if declared:
        fix = (f"ip netns add {namespace}", f"ip -n {namespace} link set dev lo alias {MARK}")
        return Deviation(namespace, None, EXISTS, "no", "yes", fix)
    return Deviation(
        namespace,
        None,
        EXISTS,
        "no",
        "yes",
        ("start what it belongs to, or have it made: [[namespaces]]",),
        left_alone="[[namespaces]] does not name it",
    )


def deviations(link: Link, state: LinkState | None, device: Path, file: str) -> list[Deviation]:
    """Compare a link with what is wanted of it.

    `device` is the tun device, `file` the configuration's name in the advice.
    """
    if state is None:
        return [_missing(link)]
    if link.kind != EXISTING and not (state.made_here and state.kind == link.kind):
        return [_foreign(link, state)]
    reason = obstacle(link, state)
    found = []
    for key, want in link.want.items():
        have = state.values[key]
        if have == want:
            continue
        if key in TAP_KEYS:
            found.append(_tap_deviation(link, state, key, file))
        else:
            fix = (set_command(link, key, want),)
            found.append(Deviation(link.namespace, link.name, key, have, want, fix, reason))
    return found + _device_deviation(link, device)


def obstacle(link: Link, state: LinkState) -> str | None:
    """Say why an interface that was there before must be left alone, None if it need not.

    It may be the one by which the operator is logged in. Whatever is in use, by its addresses or as the port
    of a bridge that nobody named here, is not taken out of use.
    """
    if link.kind != EXISTING:
        return None
    if state.made_here:
        return "colo-tap-setup made it: set it up where it is made"
    if state.values[desired.ADDRESS] != NONE:
        return f"it has the address {state.values[desired.ADDRESS]}"
    master = state.values[desired.MASTER]
    put_there_by_us = state.record is not None and desired.MASTER in state.record.before
    if master not in (NONE, link.want[desired.MASTER]) and not put_there_by_us:
        return f"it is a port of {master}"
    return None


def _missing(link: Link) -> Deviation:
    if link.kind == EXISTING:
        fix = ("plug it in, or correct its name or namespace",)
        return Deviation(
            link.namespace, link.name, EXISTS, "no", "yes", fix, "only taps and bridges are made"
        )
    return Deviation(link.namespace, link.name, EXISTS, "no", "yes", tuple(make_commands(link)))


def _foreign(link: Link, state: LinkState) -> Deviation:
    return Deviation(
        link.namespace,
        link.name,
        "origin",
        f"someone else's {state.kind}",
        f"a {link.kind} of colo-tap-setup",
        (within(link.namespace, f"ip link delete dev {link.name}"),),
        left_alone="it may be in use",
    )


def _tap_deviation(link: Link, state: LinkState, key: str, file: str) -> Deviation:
    # ip(8) cannot change these of an existing tap. Whoever has it open would lose it, or frames.
    fix = f"colo-tap-setup create -c {file}"
    have, want = state.values[key], link.want[key]
    if state.attached:
        fix = f"stop the process that has it open, then: {fix}"
    reason = "a process has it open" if state.attached else None
    return Deviation(link.namespace, link.name, key, have, want, (fix,), reason)


def _device_deviation(link: Link, device: Path) -> list[Deviation]:
    if link.kind != TAP:
        return []
    owner, group = link.want[desired.OWNER], link.want[desired.GROUP]
    trouble = device_trouble(device, int(owner), None if group == NONE else int(group))
    if trouble is None:
        return []
    want = f"{device} readable and writable by uid {owner}"
    fix = (f"chmod 0666 {device}",)
    return [Deviation(link.namespace, link.name, "device", trouble, want, fix, "the device is the machine's")]
