import hashlib

import pytest

from colo_compare.demo.content import BLOCK, blocks, digest

SIZES = (0, 1, 8, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5)


@pytest.mark.parametrize("size", SIZES)
def test_blocks_give_exactly_what_is_asked_for(size: int) -> None:
    assert len(b"".join(blocks(size))) == size


def test_a_shorter_stream_is_the_beginning_of_a_longer_one() -> None:
    longest = b"".join(blocks(SIZES[-1]))
    for size in SIZES:
        assert b"".join(blocks(size)) == longest[:size]


def test_no_two_blocks_are_alike() -> None:
    assert len(set(blocks(300 * BLOCK))) == 300


@pytest.mark.parametrize("size", SIZES)
def test_digest_is_that_of_the_stream(size: int) -> None:
    assert digest(size) == hashlib.sha256(b"".join(blocks(size))).hexdigest()
