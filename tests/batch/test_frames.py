"""Frames between two prompts: numbered files, animations, and what does not go together."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runs import Engine, Heard

from diffgen.batch.frames import Animation
from diffgen.batch.run import Run
from diffgen.batch.session import Session
from diffgen.engine.reading import read_settings
from diffgen.errors import UsageError
from diffgen.settings.prompting import Interpolating

WAY = {"interpolate": "a cat => a dog", "seed": "5", "steps": "2"}


class Colours(Engine):
    """Draws frames of their own, as no frame of a GIF is that equals the one before."""

    def draw(self, plan: Any, batch: Any, *, on_step: Any) -> Any:
        from diffgen.engine.drawing import GeneratedImage

        made = super().draw(plan, batch, on_step=on_step)
        shares = [(each.own or plan).request.between[1] for each in batch]
        levels = [(round(255 * share), 0, 9) for share in shares]
        return [
            GeneratedImage(Image.new("RGB", (8, 8), level), each.record)
            for level, each in zip(levels, made, strict=True)
        ]


def run(session: Session, batches: list[list[str]] | None = None) -> list[str]:
    heard, engines = Heard(), []

    def load(stock: Any) -> Any:
        engines.append(Colours(stock))
        return engines[0]

    Run(session.plan, session.output, load, heard).run()
    if batches is not None:
        batches += engines[0].batches
    return heard.paths


def opened(target: Path, **more: Any) -> Session:
    return Session.open([], {**WAY, "output": str(target), **more})


def test_shares_go_from_one_end_to_the_other() -> None:
    found = Interpolating(interpolate="a (cat:1.2) =>  a dog ", frames=3).records
    assert found == [
        {"prompt": "a (cat:1.2)", "towards": f"a dog:{share}"} for share in ("0", "0.5", "1")
    ]


def test_frames_are_numbered_files_that_tell_how_far_they_are(tmp_path: Path) -> None:
    assert run(opened(tmp_path, frames=3)) == [f"a-cat-5-00{i}.png" for i in (1, 2, 3)]
    record = read_settings(tmp_path / "a-cat-5-002.png").record
    assert record is not None
    assert (record["prompt"], record["towards"], record["seed"]) == ("a cat", "a dog:0.5", 5)


def test_frames_share_network_calls(tmp_path: Path) -> None:
    batches: list[list[str]] = []
    run(opened(tmp_path, frames=5, batch_size=3), batches)
    assert list(map(len, batches)) == [3, 2]


@pytest.mark.parametrize(("suffix", "batch"), [("gif", 1), ("webp", 1), ("gif", 3)])
def test_one_animation_holds_all_frames_and_makes_them_again(
    tmp_path: Path, suffix: str, batch: int
) -> None:
    file = tmp_path / f"x.{suffix}"
    run(opened(file, frames=4, batch_size=batch))
    with Image.open(file) as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        for index, level in enumerate((0, 85, 170, 255)):
            image.seek(index)
            assert abs(image.convert("RGB").getpixel((4, 4))[0] - level) < 12  # type: ignore[index,operator]
    again = tmp_path / f"y.{suffix}"
    session = Session.open([], {"from_picture": file, "output": str(again)})
    assert isinstance(session.output, Animation)
    run(session)
    first, second = (read_settings(each).record for each in (file, again))
    assert first is not None
    assert first["towards"] == [f"a dog:{s}" for s in ("0", "0.333333", "0.666667", "1")]
    assert first == second


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompt_file": "p.txt"}, "leave out --prompts"),
        ({"texts": ("a cow",)}, "leave out a prompt"),
        ({"towards": "a cow:0.5"}, "leave out --towards"),
        ({"all_combinations": True}, "leave out --all-combinations"),
        ({"interpolate": "a => {b|c}"}, "without choices"),
        ({"frames": 1}, "frames must be at least 2"),
        ({"interpolate": None, "frames": 3}, "give the two prompts"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, **more)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("x.gif", {"count": "2"}, "12 frames of 2 sequences do not fit"),
        ("x.gif", {"quality": 3}, "has no --quality"),
        ("x.jpg", {}, "12 pictures do not fit"),
    ],
)
def test_a_file_that_cannot_hold_the_frames_is_refused(
    tmp_path: Path, name: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tmp_path / name, **more)
