"""Models twice over, for all of the parity tests; being here puts this folder on the path."""

from collections.abc import Iterator

import diffusers
import pytest
import torch
from pipeline_oracle import Pair, load_storybook
from tiny_models import TinyModel

from diffgen import Engine


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """The models here are tiny."""


@pytest.fixture(scope="session", autouse=True)
def _quiet_diffusers() -> Iterator[None]:
    verbosity = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    yield
    diffusers.logging.enable_progress_bar()
    diffusers.logging.set_verbosity(verbosity)


@pytest.fixture(scope="session")
def sd1_pair(sd1: TinyModel) -> Pair:
    return Pair(sd1.pipeline, Engine.load(sd1.folder, device="cpu", dtype="fp32"))


@pytest.fixture(scope="session")
def sd2_pair(sd2: TinyModel) -> Pair:
    return Pair(sd2.pipeline, Engine.load(sd2.folder, device="cpu", dtype="fp32"))


@pytest.fixture(scope="session")
def sdxl_pair(sdxl: TinyModel) -> Pair:
    return Pair(sdxl.pipeline, Engine.load(sdxl.folder, device="cpu", dtype="fp32"))


@pytest.fixture(scope="session")
def storybook_pair() -> Pair:
    pipeline = load_storybook(torch.float32)
    return Pair(pipeline, Engine.load("storybook", device="cpu", dtype="fp32"))
