import re

import pytest
import trio

from colo_compare.checkpoint.contract import Checkpointer, NewSecondary
from colo_compare.checkpoint.null import NullCheckpointer, NullOptions
from colo_compare.errors import ConfigError
from colo_compare.testing.checkpointer_contract import check_checkpointer


async def test_it_fulfils_the_contract() -> None:
    await check_checkpointer(lambda: NullCheckpointer(NullOptions()), new_secondary=another)


async def another(backend: Checkpointer) -> NewSecondary:
    await trio.lowlevel.checkpoint()
    return NewSecondary("secondary", "packet:new", NullOptions(assume_deterministic=True))


def test_it_refuses_to_protect() -> None:
    backend = NullCheckpointer(NullOptions())
    with pytest.raises(ConfigError, match=re.escape('$.checkpointer.backend: "null" copies no state')):
        backend.check_mode("protect")
    backend.check_mode("observe")
    backend.check_mode("bypass")


def test_it_protects_guests_that_cannot_diverge() -> None:
    NullCheckpointer(NullOptions(assume_deterministic=True)).check_mode("protect")


def test_it_says_that_it_copies_nothing() -> None:
    capabilities = NullCheckpointer(NullOptions()).capabilities
    assert not capabilities.copies_state
    assert not capabilities.reports_pause
    assert not capabilities.can_promote
