"""Pictures drawn again at a larger size, by what they say of themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.batch.session import Session
from diffgen.batch.upscaling import open_upscaling
from diffgen.engine.drawing import GeneratedImage
from diffgen.engine.output import PictureOutput
from diffgen.errors import PictureError, UsageError

if TYPE_CHECKING:
    from tiny_models import TinyModel

SETTINGS: dict[str, Any] = {
    "prompts": ["a red barn"],
    "seed": 3,
    "steps": 4,
    "sampler": "euler",
    "negative": "grey",
    "width": 32,
    "height": 32,
}


@pytest.fixture(scope="module")
def engine(sd1: "TinyModel") -> Engine:
    return Engine.load(sd1.folder, device="cpu", dtype="fp32")


def draw(engine: Engine, **more: Any) -> GeneratedImage:
    (made,) = engine.generate(GenerateRequest(**{**SETTINGS, **more}))
    return made


def saved(engine: Engine, folder: Path, **more: Any) -> Path:
    made = draw(engine, **more)
    path = PictureOutput(str(folder / "small.png"), pictures=1).save(made.image, made.record)
    assert path
    return path


def drawn(engine: Engine, session: Session) -> np.ndarray:
    (job,) = session.jobs()
    (made,) = engine.draw(job.plan, [job.picture])
    return np.asarray(made.image)


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_upscaling_a_picture_is_the_second_pass_of_drawing_it_large(
    engine: Engine, tmp_path: Path, upscaler: str
) -> None:
    asked = {"hires": "2x", "hires_strength": 0.5, "hires_upscaler": upscaler}
    file = saved(engine, tmp_path)
    # lanczos begins with the 8-bit picture in both; latent with what the encoder makes of that.
    begun = {} if upscaler == "lanczos" else {"init": str(file), "strength": 0.0}
    whole = np.asarray(draw(engine, **asked, **begun).image)
    assert whole.shape[:2] == (64, 64)
    given = {**asked, "hires_strength": "0.5", "output": f"{tmp_path}/"}
    assert (drawn(engine, open_upscaling([file], given)) == whole).all()


def test_a_picture_that_was_enlarged_is_enlarged_from_what_it_is(
    engine: Engine, tmp_path: Path
) -> None:
    file = saved(engine, tmp_path, hires="2x", towards="a blue boat:0.5")
    (job,) = open_upscaling([file], {"output": f"{tmp_path}/"}).jobs()
    assert (job.plan.width, job.plan.height) == (64, 64)
    second = job.plan.second
    assert second is not None
    assert (second.width, second.height, second.strength) == (128, 128, 0.4)
    assert job.plan.strength == 0.0
    request = job.plan.request
    assert (request.towards, request.negative, request.seed) == ("a blue boat:0.5", "grey", 3)
    assert job.model == engine.model.name


def test_options_win_and_other_pictures_need_a_word(sd1: "TinyModel", tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (37, 50), "teal").save(photo)
    given = {"model": str(sd1.folder), "hires": "1.5x", "output": f"{tmp_path}/"}
    session = open_upscaling([photo], given)
    assert "does not say how it was made" in session.notes[0]
    told = open_upscaling([photo], {**given, "texts": ("a lake",), "steps": "3"})
    assert told.notes == ()
    (job,) = told.jobs()
    factor = job.plan.edits.factor if job.plan.edits else 0
    assert (job.plan.width, job.plan.height) == (37 // factor * factor, 50 // factor * factor)
    assert (job.prompt, job.plan.request.steps) == ("a lake", 3)
    assert told.output.name({"prompt": "a lake", "seed": 7}).name == "a-lake-7-1.5x.png"


def test_a_large_picture_is_never_made_smaller(sd1: "TinyModel", tmp_path: Path) -> None:
    """Though `generate --init` draws at most twice the size that a model was trained at."""
    Image.new("RGB", (640, 320), "teal").save(tmp_path / "large.png")
    given = {"model": str(sd1.folder), "texts": ("a lake",), "output": f"{tmp_path}/"}
    (job,) = open_upscaling([tmp_path / "large.png"], given).jobs()
    assert job.plan.second
    assert (job.plan.second.width, job.plan.second.height) == (1280, 640)


def test_what_cannot_be_enlarged_is_refused(sd1: "TinyModel", tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    given = {"model": str(sd1.folder), "texts": ("a lake",)}
    with pytest.raises((PictureError, UsageError), match=r"text\.png"):
        open_upscaling([tmp_path / "text.png"], given)
    with pytest.raises((PictureError, UsageError), match=r"nothing\.png"):
        open_upscaling([tmp_path / "nothing.png"], given)
