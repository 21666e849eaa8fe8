from itertools import product

import pytest

from colo_compare.checkpoint.qemu_blame import BREATHES, LIVES, SILENT, blame, is_well
from colo_compare.core.sides import PRIMARY, SECONDARY

VITALITIES = (LIVES, BREATHES, SILENT)


@pytest.mark.parametrize("copying", [True, False])
@pytest.mark.parametrize(("primary", "secondary"), list(product(VITALITIES, VITALITIES)))
def test_never_is_the_only_one_blamed_that_is_well(primary: str, secondary: str, copying: bool) -> None:
    side = blame(primary, secondary, copying=copying)
    if side == PRIMARY:
        assert VITALITIES.index(secondary) < VITALITIES.index(primary)
    elif side == SECONDARY:
        assert VITALITIES.index(primary) < VITALITIES.index(secondary)


@pytest.mark.parametrize(
    ("primary", "secondary", "idle", "copying"),
    [
        (LIVES, LIVES, None, None),
        (LIVES, BREATHES, SECONDARY, SECONDARY),
        (LIVES, SILENT, SECONDARY, SECONDARY),
        (BREATHES, LIVES, PRIMARY, PRIMARY),
        (SILENT, LIVES, PRIMARY, PRIMARY),
        (SILENT, BREATHES, None, PRIMARY),
        (BREATHES, SILENT, None, SECONDARY),
        (BREATHES, BREATHES, None, None),
        (SILENT, SILENT, None, None),
    ],
)
def test_every_case(primary: str, secondary: str, idle: int | None, copying: int | None) -> None:
    assert blame(primary, secondary, copying=False) == idle
    assert blame(primary, secondary, copying=True) == copying


def test_a_locked_main_loop_is_normal_while_a_state_is_loaded() -> None:
    assert [vitality for vitality in VITALITIES if is_well(vitality, copying=True)] == [LIVES, BREATHES]
    assert [vitality for vitality in VITALITIES if is_well(vitality, copying=False)] == [LIVES]
