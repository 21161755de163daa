"""Being here puts `tests/diffusion`, with its shared oracles, on the import path."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """The tensors here are tiny."""
