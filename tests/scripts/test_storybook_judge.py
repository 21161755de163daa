"""The judge of storybook pictures: its grading, intervals and training."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from scripts.storybook.evaluate import judge, load_verifier, main, meant, table, wilson
from scripts.storybook.prompts import HELD_OUT, Question, each_kind, questions, read_scenes
from scripts.storybook.scene import Group, Scene, is_held_out, world
from scripts.storybook.stream import SceneStream
from scripts.storybook.verifier import Verifier, Vocabulary, as_read, grade
from scripts.storybook.words import PLACES

NARROW = world("narrow", own_only=True)


class _Told(Verifier):
    """Answers every picture with the given scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(Vocabulary.of(NARROW))
        self.scene = scene

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        answers = self.vocabulary.answers(self.scene)
        widths = self.vocabulary.widths()
        logits = {n: torch.eye(widths[n])[answers[n]][None] for n in answers}
        return {"object": self.vocabulary.presence(self.scene)[None], **logits}


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_judge_tells_right_from_wrong() -> None:
    truth = Scene((Group("barn", "red"),), "snow", "night")
    blue = Scene((Group("barn", "blue"),), "snow", "night")
    asked = [Question(truth, "plain"), Question(blue, "plain")]
    marks = judge(_Told(truth), asked, [Image.new("RGB", (32, 32))] * 2)
    assert marks["single object"] == [True, True]
    assert marks["colour"] == [True, False]
    assert marks["all together"] == [True, False]
    assert next(r for r in table(marks) if r["category"] == "colour")["share"] == 0.5


def test_grade_wants_both_objects_of_a_pair() -> None:
    vocabulary = Vocabulary.of(NARROW)
    pair = Scene((Group("barn", "red"), Group("car", "blue")), "road", "day", relation="left")
    other = Scene((Group("barn", "red"), Group("bus", "blue")), "road", "day", relation="left")
    labels = vocabulary.labels([pair, pair])
    logits = {n: torch.zeros(2, w) for n, w in vocabulary.widths().items()}
    logits["object"] = torch.stack([vocabulary.presence(pair), vocabulary.presence(other)])
    marks = grade(logits, labels)
    assert marks["object"] == [True, False]
    assert marks["colour"] == []


def test_every_question_is_held_out() -> None:
    wide = world("wide")
    scenes = read_scenes(HELD_OUT, wide)
    asked = list(questions(scenes, wide))
    assert len(scenes) == 96
    assert {q.category for q in asked} == {"plain", "position", "count", "two objects"}
    assert all(is_held_out(q.scene) for q in asked)


def test_every_thing_can_be_asked_for_once() -> None:
    for name in ("narrow", "wide"):
        where = world(name)
        scenes = each_kind(where)
        assert [scene.groups[0].kind for scene in scenes] == [kind.name for kind in where.kinds]
        for scene, kind in zip(scenes, where.kinds, strict=True):
            assert (scene.groups[0].colour is None) == (not kind.body)
            assert PLACES[scene.place].water or kind.home not in ("water", "swim")


def test_training_writes_a_report_and_a_verifier(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    arguments = ["--world", "narrow", "--own-art", "--size", "32", "--out", str(tmp_path)]
    assert main([*arguments, "--seconds", "1", "--limit", "1"]) == 0
    assert "| place |" in (tmp_path / "report.md").read_text()
    rows = json.loads((tmp_path / "report.json").read_text())["verifier"]
    assert {row["total"] for row in rows if row["category"] == "place"} == {64}  # one batch
    model = load_verifier(tmp_path / "verifier.pt")
    assert model.vocabulary == Vocabulary.of(NARROW)


def test_scenes_are_painted_for_what_is_asked() -> None:
    """Each question as often as the model is asked, no two alike, in the size of the stream."""
    scene = Scene((Group("barn", "red"),), "snow", "night")
    pictures = meant([Question(scene, "plain")], 2, SceneStream(NARROW, 32))
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_pictures_are_read_from_minus_one_to_one() -> None:
    orange = Image.new("RGBA", (2, 3), (255, 51, 0, 255))
    read = as_read([orange, orange])
    assert read.shape == (2, 3, 3, 2)
    assert read[1, :, 2, 1].tolist() == pytest.approx([1.0, -0.6, -1.0])


def test_two_things_apart_do_not_dilute_each_other() -> None:
    """A thing is found by the same pieces, whatever stands elsewhere."""
    torch.manual_seed(0)
    model = Verifier(Vocabulary.of(NARROW)).eval()
    left, right = torch.rand(2, 1, 3, 64, 256)
    grey = torch.zeros(1, 3, 64, 512)
    both = torch.cat([left, grey, right], dim=3)
    alone = torch.cat([left, grey, torch.zeros_like(right)], dim=3)
    pieces = [model.things(model.trunk(picture)) for picture in (both, alone)]
    assert torch.allclose(pieces[0][..., :8], pieces[1][..., :8], atol=1e-6)
    found = model(both)["object"]
    assert torch.allclose(found, pieces[0].flatten(2).logsumexp(dim=2))
