from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES


def test_each_side_has_its_name() -> None:
    assert [SIDE_NAMES[side] for side in (CLIENT, PRIMARY, SECONDARY)] == ["client", "primary", "secondary"]
