"""Contract checks that any frame port or checkpointer, a third party's too, must pass."""

from colo_compare.testing.checkpointer_contract import check_checkpointer
from colo_compare.testing.port_contract import check_port

__all__ = ["check_checkpointer", "check_port"]
