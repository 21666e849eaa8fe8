import dataclasses
import math

import pytest

from colo_compare.core.settings import BLOCK, BYPASS, MODES, OBSERVE, PROTECT, SOLO, Settings


def test_the_modes() -> None:
    assert (
        MODES == (PROTECT, OBSERVE, SOLO, BLOCK, BYPASS) == ("protect", "observe", "solo", "block", "bypass")
    )


def test_unless_told_otherwise_it_protects_everything() -> None:
    settings = Settings()
    assert (settings.mode, settings.mirror, settings.rewrite) == (PROTECT, True, True)
    assert settings.on_secondary_loss == SOLO
    assert settings.max_interval == math.inf


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().mode = SOLO  # type: ignore[misc]  # that is the test
