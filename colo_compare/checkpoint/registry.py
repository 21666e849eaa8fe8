"""Finding a checkpointer by its name.

The built-in backends are in a table here, so that a source tree that was never installed has them. All others
come from the entry-point group ``colo_compare.checkpointers`` of installed packages. A package may not shadow
a built-in: a configuration that says ``null`` means the same on every machine.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from colo_compare.checkpoint.contract import Checkpointer
from colo_compare.errors import CheckpointerError

GROUP: Final = "colo_compare.checkpointers"

BUILT_IN: Final = {
    "null": "colo_compare.checkpoint.null:NullCheckpointer",
    "command": "colo_compare.checkpoint.command:CommandCheckpointer",
    "qemu": "colo_compare.checkpoint.qemu:QemuCheckpointer",
    "memory": "colo_compare.checkpoint.memory.backend:MemoryCheckpointer",
    "xen-notify": "colo_compare.checkpoint.xen_notify:XenNotifyCheckpointer",
}


def checkpointer_names() -> tuple[str, ...]:
    """Give the names of all backends that are installed, sorted."""
    return tuple(sorted({*BUILT_IN, *entry_points(group=GROUP).names}))


def load_checkpointer(name: str) -> type[Checkpointer]:
    """Give the class of a backend.

    Raises CheckpointerError when no package offers that name, when two do, when it cannot be imported, or
    when what it names is no Checkpointer.
    """
    point = EntryPoint(name, BUILT_IN[name], GROUP) if name in BUILT_IN else _third_party(name)
    try:
        backend = point.load()
    except Exception as error:  # whatever a third party's module does while it is imported
        raise CheckpointerError(
            f'checkpointer "{name}" cannot be imported from {point.value}: {type(error).__name__}: {error}'
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, Checkpointer)):
        raise CheckpointerError(
            f'checkpointer "{name}": {point.value} is no colo_compare.checkpoint.contract.Checkpointer'
        )
    return backend


def _third_party(name: str) -> EntryPoint:
    found = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not found:
        raise CheckpointerError(
            f'no checkpointer "{name}" is installed; known: {", ".join(checkpointer_names())} '
            f'(others come from packages with an entry point in the group "{GROUP}")'
        )
    if len(found) > 1:
        raise CheckpointerError(
            f'checkpointer "{name}" is offered more than once: {", ".join(sorted(found))}; remove one'
        )
    return found.popitem()[1]
