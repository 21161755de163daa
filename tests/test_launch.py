"""diffgen.launch: the environment of torchrun."""

import pytest

from diffgen.launch import is_first, process_count


@pytest.mark.parametrize(
    ("environment", "count", "first"),
    [
        ({}, 1, True),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 4, True),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "0"}, 4, False),
    ],
)
def test_one_process_of_several_writes_for_all(environment, count, first):
    assert (process_count(environment), is_first(environment)) == (count, first)
