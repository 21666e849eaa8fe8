"""Removing what was made here, and putting back what was only prepared.

A link is removed if it carries the mark (see `record`), not because the configuration names it: someone
else's tap of the same name stays. An interface that carries a record is put back to it.
"""

from colo_compare.errors import SetupError
from tap_setup.check import by_namespace
from tap_setup.desired import EXISTING, Desired, Link
from tap_setup.host import Host, LinkState
from tap_setup.namespaces import inside, made_here, namespace_exists, others_in, remove_namespace
from tap_setup.record import Record
from tap_setup.report import Change, Report


def destroy(wanted: Desired, report: Report) -> None:
    """Remove and restore; `report` gets every change, and what was left and why.

    Raises SetupError (PrivilegeMissing) at the first refusal of the kernel.
    """
    for home, links in reversed(by_namespace(wanted).items()):
        report.links += len(links)
        if home is not None and not namespace_exists(home):
            continue

        def take_away(host: Host, links: list[Link] = links) -> None:
            for link in reversed(links):
                _take_away(host, link, report)

        inside(home, wanted.device, take_away)
    for namespace in reversed(wanted.namespaces):
        if namespace_exists(namespace):
            _remove(namespace, wanted, report)


def _take_away(host: Host, link: Link, report: Report) -> None:
    state = host.read(link.name)
    if state is None:
        return
    if link.kind == EXISTING:
        if state.record is not None:
            _restore(host, link, state, state.record, report)
    elif state.made_here:
        host.delete(state)
        report.changes.append(Change(link.namespace, link.name, "removed"))
    else:
        report.left.append(Change(link.namespace, link.name, "was not made by colo-tap-setup"))


def _restore(host: Host, link: Link, state: LinkState, record: Record, report: Report) -> None:
    for key, value in reversed(list(record.before.items())):
        host.set(state, key, value)
        report.changes.append(Change(link.namespace, link.name, f"{key} {state.values[key]} -> {value}"))
    now = host.read(link.name)
    for key, value in record.before.items():
        if now is not None and now.values[key] != value:
            raise SetupError(
                f"{link.name}: {key} was put back to {value} and is {now.values[key]}; set it by hand"
            )
    host.set_alias(state, record.alias)


def _remove(namespace: str, wanted: Desired, report: Report) -> None:
    made, others = inside(namespace, wanted.device, lambda host: (made_here(host), others_in(host)))
    if not made:
        report.left.append(Change(namespace, None, "was not made by colo-tap-setup"))
    elif others:
        # They would be lost with it, or come back to where nobody expects them.
        report.kept.append(
            Change(namespace, None, f"holds {', '.join(others)}: move or delete that, then again")
        )
    else:
        remove_namespace(namespace)
        report.changes.append(Change(namespace, None, "removed"))
