"""Comparing the machine with the configuration."""

from tap_setup.desired import Desired, Link
from tap_setup.deviations import deviations, missing_namespace
from tap_setup.host import Host
from tap_setup.namespaces import inside, namespace_exists
from tap_setup.report import Report


def check(desired: Desired, file: str, report: Report) -> None:
    """Read everything and fill in `report.deviations`. Changes nothing.

    `file` is the configuration's name in the advice. Raises SetupError (PrivilegeMissing).
    """
    for namespace in desired.namespaces:
        if not namespace_exists(namespace):
            report.deviations.append(missing_namespace(namespace, declared=True))
    for home, links in by_namespace(desired).items():
        report.links += len(links)
        if home is not None and not namespace_exists(home):
            if home not in desired.namespaces:
                report.deviations.append(missing_namespace(home, declared=False))
            for link in links:
                report.deviations += deviations(link, None, desired.device, file)
            continue

        def compare(host: Host, links: list[Link] = links) -> None:
            for link in links:
                report.deviations.extend(deviations(link, host.read(link.name), desired.device, file))

        inside(home, desired.device, compare)


def by_namespace(desired: Desired) -> dict[str | None, list[Link]]:
    """Give the links of each namespace, in the order in which they must be made."""
    groups: dict[str | None, list[Link]] = {}
    for link in desired.links:
        groups.setdefault(link.namespace, []).append(link)
    return groups
