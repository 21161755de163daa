"""Pictures in: what is kept is kept to the bit, passes are runs, and nonsense is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from diffgen import Engine, GenerateRequest
from diffgen.engine.drawing import GeneratedImage
from diffgen.engine.edits import Edit
from diffgen.errors import UsageError
from diffgen.settings.editing import Editing

PROMPT = "a red barn"


def draw(engine: Engine, **settings: Any) -> list[GeneratedImage]:
    request = {"prompts": [PROMPT], "seed": 3, "steps": 4, "sampler": "euler", **settings}
    return list(engine.generate(GenerateRequest(**request)))


def pixels(picture: GeneratedImage) -> np.ndarray:
    return np.asarray(picture.image)


def colourful(size: tuple[int, int], seed: int = 1) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def init(tmp_path: Path) -> str:
    colourful((32, 32)).save(tmp_path / "init.png")
    return str(tmp_path / "init.png")


def masked(tmp_path: Path, box: Sequence[int], size: tuple[int, int] = (32, 32)) -> str:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle(tuple(box), fill=255)
    mask.save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def original(init: str) -> np.ndarray:
    return np.asarray(Image.open(init, formats=["PNG"]).convert("RGB"))


def test_strength_0_is_the_reconstruction(engine: Engine, init: str) -> None:
    (picture,) = draw(engine, init=init, strength=0.0)
    values = torch.from_numpy(original(init).copy()).permute(2, 0, 1)[None] / 127.5 - 1.0
    (expected,) = engine.decode(engine.encode_image(values))
    assert np.array_equal(pixels(picture), np.asarray(expected))
    assert picture.record["steps_run"] == 0


def test_what_is_run_is_said_and_counted(engine: Engine, init: str) -> None:
    seen = []
    plan = engine.plan(
        GenerateRequest(prompts=[PROMPT], init=init, strength=0.5, steps=10, sampler="euler")
    )
    assert "the last 5 of 10 steps, 5 evaluations each" in plan.summary()
    (picture,) = engine.generate(plan, on_step=lambda info: seen.append(info.total))
    assert seen == [5] * 5
    assert (picture.record["steps"], picture.record["steps_run"]) == (10, 5)


@pytest.mark.parametrize("size", [(32, 32), (45, 30), (64, 20)])
def test_the_size_is_the_pictures(engine: Engine, tmp_path: Path, size: tuple[int, int]) -> None:
    colourful(size).save(tmp_path / "a.png")
    (picture,) = draw(engine, init=str(tmp_path / "a.png"))
    assert picture.image.size == (size[0] // 4 * 4, size[1] // 4 * 4)


def test_a_photograph_is_drawn_at_twice_the_models_size_at_most(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    colourful((800, 400)).save(tmp_path / "a.png")
    (picture,) = draw(engine, init=str(tmp_path / "a.png"), steps=2)
    width, height = picture.image.size
    assert width * height <= 1.1 * (2 * engine.config.native_size) ** 2
    assert width / height == pytest.approx(2.0, rel=0.1)
    assert "a.png is 800 x 400; drawn at" in caplog.text


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_one_side_has_the_other_follow(engine: Engine, tmp_path: Path, fit: str) -> None:
    colourful((60, 30)).save(tmp_path / "a.png")
    (picture,) = draw(engine, init=str(tmp_path / "a.png"), width=40, fit=fit)
    assert picture.image.size == (40, 20)


@pytest.mark.parametrize(
    "options", [{}, {"mask_blur": 2.0}, {"mask_crop": 2}, {"mask_crop": 0, "mask_blur": 1.5}]
)
@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m", "dpm_adaptive"])
def test_pixels_outside_the_mask_are_the_pictures_own(
    engine: Engine, init: str, tmp_path: Path, options: dict[str, Any], sampler: str
) -> None:
    mask = masked(tmp_path, (9, 6, 17, 20))
    (picture,) = draw(engine, init=init, mask=mask, sampler=sampler, **options)
    (again,) = draw(engine, init=init, mask=mask, sampler=sampler, **options)
    far = np.ones((32, 32), bool)
    margin = 4 * int(options.get("mask_blur", 0)) + 1
    far[max(6 - margin, 0) : 21 + margin, max(9 - margin, 0) : 18 + margin] = False
    assert np.array_equal(pixels(picture)[far], original(init)[far])
    assert not np.array_equal(pixels(picture)[8:18, 11:16], original(init)[8:18, 11:16])
    assert np.array_equal(pixels(picture), pixels(again))


def test_a_soft_mask_mixes(engine: Engine, init: str, tmp_path: Path) -> None:
    Image.new("L", (32, 32), 128).save(tmp_path / "half.png")
    (half,) = draw(engine, init=init, mask=str(tmp_path / "half.png"))
    (full,) = draw(engine, init=init, mask=masked(tmp_path, (0, 0, 31, 31)))
    apart = [np.abs(pixels(p).astype(float) - original(init)).mean() for p in (half, full)]
    assert 0.0 < apart[0] < 0.8 * apart[1]


def test_an_inverted_mask_is_the_mask_of_the_rest(
    engine: Engine, init: str, tmp_path: Path
) -> None:
    mask = masked(tmp_path, (0, 0, 15, 31))
    (picture,) = draw(engine, init=init, mask=mask, mask_invert=True)
    assert np.array_equal(pixels(picture)[:, :16], original(init)[:, :16])
    assert not np.array_equal(pixels(picture)[:, 16:], original(init)[:, 16:])


def test_what_is_transparent_is_painted_anew(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = colourful((32, 32)).convert("RGBA")
    image.putalpha(Image.open(masked(tmp_path, (0, 0, 31, 15)), formats=["PNG"]))
    image.save(tmp_path / "a.png")
    (picture,) = draw(engine, init=str(tmp_path / "a.png"))
    own = original(str(tmp_path / "a.png"))
    assert np.array_equal(pixels(picture)[:16], own[:16])
    assert not np.array_equal(pixels(picture)[16:], own[16:])
    assert "transparent parts of a.png are repainted" in caplog.text


def test_outpainting_keeps_the_picture_in_its_place(engine: Engine, init: str) -> None:
    sides = (8, 0, 4, 12)  # left, right, top, bottom
    (picture,) = draw(engine, init=init, outpaint=sides, mask_blur=0.0)
    assert picture.image.size == (40, 48)
    assert np.array_equal(pixels(picture)[4:36, 8:40], original(init))
    assert picture.record["outpaint"] == [8, 0, 4, 12]


def test_outpainting_fades_at_the_sides_that_grow_and_nowhere_else(
    engine: Engine, init: str
) -> None:
    """Without a fade, what is drawn ends in a straight line at the picture's edge."""
    sides = (8, 0, 4, 0)
    (picture,) = draw(engine, init=init, outpaint=sides)
    own, drawn = original(init), pixels(picture)[4:, 8:]
    assert picture.record["mask_blur"] == 2.0  # of 32 pixels no more than a sixteenth
    assert np.array_equal(drawn[9:, 9:], own[9:, 9:])
    assert not np.array_equal(drawn[:8], own[:8])
    assert not np.array_equal(drawn[9:, :8], own[9:, :8])
    (again,) = draw(engine, init=init, outpaint=sides, mask_blur=2.0)
    assert np.array_equal(pixels(picture), pixels(again))


@pytest.mark.parametrize(("width", "blur"), [(502, 16.0), (2008, 4.0), (None, 62.5)])
def test_the_fade_of_outpainting_is_as_wide_in_every_size_that_is_drawn(
    engine: Engine, tmp_path: Path, width: int | None, blur: float
) -> None:
    colourful((1000, 1000)).save(tmp_path / "a.png")
    settings = Editing(init=str(tmp_path / "a.png"), outpaint=(4, 0, 0, 0))
    edit = Edit.make(settings, str(tmp_path / "a.png"), (width, None), engine.config)
    assert edit.blur == pytest.approx(blur, rel=0.02)


def test_the_size_of_a_canvas_is_not_told_as_the_pictures(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    colourful((31, 32)).save(tmp_path / "a.png")
    draw(engine, init=str(tmp_path / "a.png"), outpaint=(4, 4, 4, 4), steps=2)
    assert "a.png is 39 x 40 with what is added; drawn at 36 x 40" in caplog.text


def test_only_the_mask_is_drawn_at_the_models_size(engine: Engine, tmp_path: Path) -> None:
    """A spot in a large picture gets all the pixels that the model has, and goes back into it."""
    colourful((300, 200)).save(tmp_path / "large.png")
    mask = masked(tmp_path, (100, 100, 115, 115), (300, 200))
    seen = []
    plan = engine.plan(
        GenerateRequest(
            prompts=[PROMPT], init=str(tmp_path / "large.png"), mask=mask, mask_crop=2, steps=2
        )
    )
    (picture,) = engine.generate(plan, on_step=lambda info: seen.append(info.x.shape[-2:]))
    assert set(seen) == {torch.Size([8, 8])}  # 20 x 20 pixels as 32 x 32
    assert picture.image.size == (300, 200)
    outside = np.ones((200, 300), bool)
    outside[100:116, 100:116] = False
    assert np.array_equal(pixels(picture)[outside], original(str(tmp_path / "large.png"))[outside])


def test_a_mask_of_another_size_is_stretched_and_that_is_said(
    engine: Engine, init: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = masked(tmp_path, (0, 0, 31, 63), (64, 64))
    (picture,) = draw(engine, init=init, mask=mask)
    assert np.array_equal(pixels(picture)[:, 17:], original(init)[:, 17:])
    assert "the mask mask.png is 64 x 64; stretched to the 32 x 32 of init.png" in caplog.text


def test_a_white_mask_is_said(
    engine: Engine, init: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(engine, init=init, mask=masked(tmp_path, (0, 0, 31, 31)))
    assert "the mask is all white: nothing of init.png is kept" in caplog.text


def test_a_folder_gives_a_picture_for_each_in_it(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, size in ((1, (32, 32)), (2, (48, 32))):
        colourful(size, seed).save(folder / f"{seed}.png")
    found = draw(engine, init=str(folder), count=2, batch_size=4)
    assert [p.image.size for p in found] == [(32, 32)] * 2 + [(48, 32)] * 2
    assert [Path(p.record["init"]).name for p in found] == ["1.png", "1.png", "2.png", "2.png"]
    (alone,) = draw(engine, init=str(folder / "2.png"), seed=4)
    assert np.array_equal(pixels(found[3]), pixels(alone))


def test_a_record_makes_the_picture_again(engine: Engine, init: str, tmp_path: Path) -> None:
    mask = masked(tmp_path, (4, 4, 20, 20))
    (picture,) = draw(engine, init=init, mask=mask, strength=0.75, mask_blur=1.0)
    record = picture.record
    names = ("init", "mask", "strength", "mask_blur", "steps", "sampler", "seed")
    (again,) = draw(engine, **{name: record[name] for name in names})
    assert np.array_equal(pixels(picture), pixels(again))
    assert len(record["init_sha256"]) == len(record["mask_sha256"]) == 64


def test_a_larger_second_pass_is_two_runs_to_the_bit(engine: Engine, tmp_path: Path) -> None:
    (once,) = draw(engine)
    once.image.resize((64, 64), Image.Resampling.LANCZOS).save(tmp_path / "large.png")
    (twice,) = draw(engine, init=str(tmp_path / "large.png"), strength=0.5, steps=6)
    (hires,) = draw(engine, hires="2x", hires_strength=0.5, hires_steps=6)
    assert np.array_equal(pixels(hires), pixels(twice))
    assert hires.record["hires_size"] == [64, 64]


def test_a_second_pass_of_latents_is_two_runs_to_the_bit(engine: Engine) -> None:
    from diffgen.engine.editing import Beginning

    request = {"prompts": [PROMPT], "seed": 3, "steps": 4, "sampler": "euler"}
    plan = engine.plan(
        GenerateRequest(**request, hires="64x48", hires_upscaler="latent", hires_strength=0.5)
    )
    first = engine.sample(plan, [3], engine.guides(plan, [PROMPT]))
    large = torch.nn.functional.interpolate(first, (12, 16), mode="bilinear")
    assert plan.second is not None
    guides = engine.guides(plan.second, [PROMPT])
    latents = engine.sample(plan.second, [3], guides, Beginning(large))
    (picture,) = engine.generate(plan)
    assert np.array_equal(pixels(picture), np.asarray(engine.decode(latents)[0]))


def test_variations_lead_to_the_other_seed(engine: Engine) -> None:
    (first,), (second,) = draw(engine, seed=3), draw(engine, seed=9)
    (none,), (all_,) = draw(engine, variation="9:0"), draw(engine, variation="9:1")
    (some,) = draw(engine, variation="9:0.3")
    assert np.array_equal(pixels(none), pixels(first))
    assert np.array_equal(pixels(all_), pixels(second))
    assert not np.array_equal(pixels(some), pixels(first))


def test_seamless_pictures_come_and_go(engine: Engine) -> None:
    (plain,) = draw(engine)
    (seamless,) = draw(engine, seamless="xy")
    (again,) = draw(engine)
    assert not np.array_equal(pixels(plain), pixels(seamless))
    assert np.array_equal(pixels(plain), pixels(again))


def test_strips_are_the_picture_within_a_level(engine: Engine, init: str) -> None:
    (whole,), (strips,) = (draw(engine, init=init, tile_vae=t) for t in (False, True))
    difference = np.abs(pixels(whole).astype(int) - pixels(strips))
    assert difference.max() <= 1


def test_batches_never_change_an_edit(engine: Engine, init: str, tmp_path: Path) -> None:
    mask = masked(tmp_path, (4, 4, 20, 20))
    together = draw(engine, init=init, mask=mask, count=3, batch_size=3, sampler="euler_a")
    alone = [draw(engine, init=init, mask=mask, seed=s, sampler="euler_a")[0] for s in (3, 4, 5)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(pixels(a).astype(int) - pixels(b)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strength": 0.5}, "--strength is about a picture; give one with --init"),
        ({"mask": "m.png"}, "--mask is about a picture; give one with --init"),
        ({"outpaint": (0, 8, 0, 0)}, "--outpaint is about a picture"),
        ({"init": "-", "mask": "-"}, "both read stdin"),
        ({"init": "INIT", "strength": 1.5}, "strength must be from 0 to 1, got 1.5"),
        ({"init": "INIT", "strength": float("nan")}, "strength must be a finite number"),
        ({"init": "INIT", "strength": 0.1}, "less than one of 4 steps; take at least 0.25"),
        ({"init": "INIT", "mask": "BLACK"}, "the mask is all black: nothing would be painted"),
        ({"init": "INIT", "mask_invert": True}, "--mask-invert turns a mask round; give one"),
        ({"init": "INIT", "mask_crop": 4}, "--mask-crop paints a mask only; give one"),
        ({"init": "INIT", "mask": "gone.png"}, "cannot read the picture gone.png"),
        ({"init": "INIT", "mask": "WHITE", "hires": "2x"}, "--hires draws whole pictures"),
        ({"refiner": "storybook"}, "--refiner storybook works on other latents than the model"),
        ({"hires_steps": 3}, "--hires-steps is about a second pass"),
        ({"hires": "2x", "hires_upscaler": "gone.pth"}, "there is no file gone.pth"),
        ({"hires": "33x31"}, "hires width 33 does not divide by 4"),
        ({"init": "INIT", "width": 33}, "width 33 does not divide by 4"),
    ],
)
def test_contradictions_are_refused(
    engine: Engine, init: str, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    for name, level in (("BLACK", 0), ("WHITE", 255)):
        Image.new("L", (32, 32), level).save(tmp_path / f"{name}.png")
    places = {"INIT": init} | {n: str(tmp_path / f"{n}.png") for n in ("BLACK", "WHITE")}
    told = {k: places.get(v, v) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(UsageError, match=says) as error:
        draw(engine, **told)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m"])
def test_a_model_that_refines_itself(engine: Engine, sampler: str) -> None:
    """It changes nothing but what a sampler remembers of its steps, and the noise on the way."""
    seen = []
    model = str(engine.model.checkpoint.source)
    settings = {"prompts": [PROMPT], "seed": 3, "steps": 5, "sampler": sampler}
    plan = engine.plan(GenerateRequest(**settings, refiner=model, refiner_start=0.6))
    (refined,) = engine.generate(plan, on_step=lambda info: seen.append(info.total))
    assert plan.evaluations == 5
    assert seen == [3] * 3 + [2] * 2
    (alone,) = draw(engine, sampler=sampler, steps=5)
    if sampler == "euler":
        difference = np.abs(pixels(refined).astype(int) - pixels(alone))
        assert difference.max() <= 1
    assert refined.record["refiner"] == model
    assert "refiner_files" in refined.record
