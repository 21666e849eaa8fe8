"""Making what is missing and repairing what deviates.

There is one way only: what `check` finds is put right, one property after the other, and read back. So what
needs nothing gets nothing, and a second run changes nothing.

A refusal of the kernel ends the run. What was done before it stays and is in the report: taking it back might
take away what a running guest stands on, and the next run goes on from there.
"""

from colo_compare.errors import SetupError
from tap_setup.check import by_namespace, check
from tap_setup.desired import BRIDGE, EXISTING, TAP, TAP_KEYS, Desired, Link
from tap_setup.deviations import deviations
from tap_setup.host import Host, LinkState
from tap_setup.namespaces import inside, make_namespace, namespace_exists
from tap_setup.record import Record
from tap_setup.report import Change, Report


def create(wanted: Desired, file: str, report: Report) -> None:
    """Make and repair; `report` gets every change, and the deviations that remain.

    Raises SetupError (PrivilegeMissing) at the first refusal of the kernel.
    """
    for namespace in wanted.namespaces:
        if not namespace_exists(namespace):
            make_namespace(namespace, wanted.device)
            report.changes.append(Change(namespace, None, "made"))
    for home, links in by_namespace(wanted).items():
        if home is not None and not namespace_exists(home):
            continue

        def bring_about(host: Host, links: list[Link] = links) -> None:
            for link in links:
                _make_missing(host, link, report)
            # Bridges last: the kernel changes a bridge's MTU as ports come and go.
            for link in sorted(links, key=lambda link: link.kind == BRIDGE):
                _repair(host, link, wanted, file, report)

        inside(home, wanted.device, bring_about)
    check(wanted, file, report)


def _make_missing(host: Host, link: Link, report: Report) -> None:
    if link.kind != EXISTING and host.read(link.name) is None:
        host.make(link)
        report.changes.append(Change(link.namespace, link.name, _made(link)))


def _repair(host: Host, link: Link, wanted: Desired, file: str, report: Report) -> None:
    def to_repair(state: LinkState) -> list[str]:
        found = deviations(link, state, wanted.device, file)
        return [deviation.property for deviation in found if deviation.left_alone is None]

    state = host.read(link.name)
    if state is None:
        return  # an interface that is not there: `check` reports it
    reshaped = [key for key in to_repair(state) if key in TAP_KEYS]
    if reshaped:
        host.reshape(link, state)
        report.changes += [_change(link, key, state) for key in reshaped]
        state = _read_back(host, link, reshaped)  # maybe of a new tap, with everything else to be set
    repaired = to_repair(state)
    for key in repaired:
        if link.kind == EXISTING:
            state = _noted(host, link, state, key)
        host.set(state, key, link.want[key])
        report.changes.append(_change(link, key, state))
    if repaired:
        _read_back(host, link, repaired)


def _noted(host: Host, link: Link, state: LinkState, key: str) -> LinkState:
    """Write on the link what it is like before that changes, so that `destroy` can put it back."""
    record = state.record or Record({}, state.alias)
    if key in record.before:
        return state
    host.note(state, record.with_value(key, state.values[key]))
    return _read_back(host, link, [])


def _read_back(host: Host, link: Link, keys: list[str]) -> LinkState:
    """Read the link again. Raises SetupError if the kernel did not do what it took without complaint."""
    state = host.read(link.name)
    if state is None:
        raise SetupError(
            f"{link.name} went away while it was set up; see what removes it, and run create again"
        )
    for key in keys:
        if state.values[key] != link.want[key]:
            raise SetupError(
                f"{link.name}: {key} was set to {link.want[key]} and is still {state.values[key]};"
                " see what else configures this link (NetworkManager, systemd-networkd)"
            )
    return state


def _made(link: Link) -> str:
    if link.kind != TAP:
        return f"made a {link.kind}"
    shape = ", ".join(f"{key} {link.want[key]}" for key in TAP_KEYS)
    return f"made a {link.kind}: {shape}"


def _change(link: Link, key: str, state: LinkState) -> Change:
    return Change(link.namespace, link.name, f"{key} {state.values[key]} -> {link.want[key]}")
