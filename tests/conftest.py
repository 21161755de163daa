"""Models that tests of several folders share; being here puts `tests` on the import path."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

# Tests run in as many processes as there are cores; threads of them all would only wait in turns.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for programs that tests start with more
# Triton reads it when it is first imported, which peft and diffusers do.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Shells start jobs in the background deaf to Ctrl-C, and nohup to a closed terminal; so would be
# the programs that tests start.
for name, handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("diffgen", deadline=None)
hypothesis.settings.load_profile("diffgen")

if TYPE_CHECKING:
    from tiny_models import TinyModel


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes and gigabytes; runs with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that take minutes and gigabytes run where they are asked for: `-m slow`."""
    if "slow" in config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def _tiny(family: str, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    import tiny_models  # takes seconds: diffusers

    folder = tmp_path_factory.mktemp("models") / family
    pipeline = getattr(tiny_models, f"tiny_{family}")(folder)
    return tiny_models.TinyModel(folder, pipeline)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the programs they start leave the user's own folders alone, and know no settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DIFFGEN_", "HF_"))]:
            patch.delenv(name)
        for kind in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"XDG_{kind}_HOME", str(tmp_path_factory.mktemp(kind.lower())))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """For tiny tensors, on which threads would spend their time waiting for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return _tiny("sd1", tmp_path_factory)


@pytest.fixture(scope="session")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return _tiny("sd2", tmp_path_factory)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return _tiny("sdxl", tmp_path_factory)
