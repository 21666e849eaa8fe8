"""Which guest of a pair is to blame when something does not work: a judgement from what answers.

Wrong judgements cost differently. To lose a secondary that was well costs its protection; to fence a primary
that was well costs a failover; to fence the only guest that is well costs the service. So that never happens.
"""

from typing import Final

from colo_compare.core.sides import PRIMARY, SECONDARY

# How much of a guest answers.
LIVES: Final = "lives"  # its main loop
BREATHES: Final = "breathes"  # its process runs, but not its main loop
SILENT: Final = "silent"  # nothing


def blame(primary: str, secondary: str, *, copying: bool) -> int | None:
    """Give the side that does not work, None where that cannot be told.

    `copying`: a state is on its way. The main loop of the guest that waits for the other one is locked
    then: where one of them breathes and the other one is silent, it is the silent one that hangs.
    """
    if primary == secondary:
        return None
    if LIVES in (primary, secondary):
        return PRIMARY if secondary == LIVES else SECONDARY
    if not copying:
        return None
    return PRIMARY if primary == SILENT else SECONDARY


def is_well(vitality: str, *, copying: bool) -> bool:
    """Say whether there is no reason to look closer. How long a state may take is timed elsewhere."""
    return vitality == LIVES or (copying and vitality == BREATHES)
