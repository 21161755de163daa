"""The storybook world: reproducible scenes, honest captions, held-out combinations, the judge."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from scripts.storybook.artwork import recolour
from scripts.storybook.captions import captions
from scripts.storybook.draw import main as draw
from scripts.storybook.objects import all_kinds
from scripts.storybook.oklch import from_oklch, hue_distance, to_oklch
from scripts.storybook.paint import paint
from scripts.storybook.scene import WORLDS, Group, Scene, held_out, is_held_out, sample, world
from scripts.storybook.stream import SceneStream
from scripts.storybook.words import COLOURS, PLACES, TIMES

NOWHERE = Path("no-artwork-here")


def test_table_is_sound() -> None:
    kinds = all_kinds()
    assert len(kinds) >= 150
    assert {k.home for k in kinds.values()} == {"ground", "water", "swim", "sky"}
    assert len({k.plural for k in kinds.values()}) == len(kinds)


def test_scene_depends_on_seed_and_index_only() -> None:
    wide = world("wide")
    assert [sample(wide, 5, i) for i in range(50)] == [sample(wide, 5, i) for i in range(50)]
    assert sample(wide, 5, 1) != sample(wide, 6, 1)
    assert sample(wide, 5, 1) != sample(wide, 5, 2)


@pytest.mark.parametrize("name", WORLDS)
def test_held_out_combinations_are_never_drawn(name: str) -> None:
    where = world(name)
    listed = held_out()
    assert ("barn", "red", "*", "sunset") in listed
    for index in range(20000):
        scene = sample(where, 0, index)
        for group in scene.groups:
            key = (group.kind, group.colour or "-")
            assert (*key, scene.place, scene.time) not in listed
            assert (*key, "*", scene.time) not in listed


def test_kinds_of_many_colours_come_up_three_times_as_often_in_the_wide_world() -> None:
    wide = world("wide")
    firsts = [all_kinds()[sample(wide, 0, i).groups[0].kind] for i in range(4000)]
    coloured = sum(bool(kind.body) for kind in wide.kinds)
    per_coloured = sum(bool(kind.body) for kind in firsts) / coloured
    per_plain = sum(not kind.body for kind in firsts) / (len(wide.kinds) - coloured)
    assert 2.5 < per_coloured / per_plain < 3.5


def test_held_out_list_names_what_exists() -> None:
    for kind, colour, place, time in held_out():
        assert (colour in COLOURS) == bool(all_kinds()[kind].body)
        assert place in (*PLACES, "*")
        assert time in TIMES
    assert is_held_out(Scene((Group("barn", "red"),), "snow", "sunset"))
    assert not is_held_out(Scene((Group("barn", "red"),), "snow", "night"))


def test_full_captions_name_what_is_there() -> None:
    wide = world("wide")
    for index in range(500):
        scene = sample(wide, 1, index)
        *full, short = captions(scene)
        for caption in full:
            assert any(said in caption for said in TIMES[scene.time])
            assert scene.position == "middle" or scene.position in caption
            for group in scene.groups:
                assert group.colour is None or f" {group.colour} " in f" {caption} "
        assert all(group.colour is None or group.colour in short for group in scene.groups)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (
            Scene((Group("barn", "red"),), "field", "sunset"),
            "a red barn in a green field at sunset",
        ),
        (
            Scene((Group("sailboat", "blue", 2),), "sea", "night"),
            "two blue sailboats on the sea at night",
        ),
        (
            Scene((Group("cat", None, size="small"),), "snow", "day", "left"),
            "a small cat in the snow on a sunny day, on the left",
        ),
        (
            Scene((Group("owl", None), Group("house", "white")), "city", "fog", relation="right"),
            "an owl to the right of a white house in the city in the fog",
        ),
    ],
)
def test_plain_caption(scene: Scene, caption: str) -> None:
    assert captions(scene)[0] == caption


@pytest.mark.parametrize("rgb", [(222, 52, 44), (0, 0, 0), (255, 255, 255), (48, 112, 220)])
def test_oklch_round_trip(rgb: tuple[int, int, int]) -> None:
    assert np.allclose(from_oklch(*to_oklch(rgb)), rgb, atol=1)  # one step of 8-bit rounding


def test_recolour_moves_the_body_keeps_its_shading_and_leaves_the_rest() -> None:
    svg = '<path fill="#d8412f"/><path fill="#b52f22"/><path fill="#cfeefc"/>'
    blue = recolour(svg, body="d8412f", colour="blue")
    light, dark = (tuple(bytes.fromhex(part[:6])) for part in blue.split("#")[1:3])
    goal = to_oklch(COLOURS["blue"])[2]
    for shade in (light, dark):
        assert hue_distance(to_oklch((shade[0], shade[1], shade[2]))[2], goal) < 12
    assert sum(light) > sum(dark)
    assert "#cfeefc" in blue


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("place", PLACES)
def test_every_background_paints_and_repeats(place: str, time: str) -> None:
    scene = Scene((Group("barn", "blue"),), place, time, variation=3)
    picture = paint(scene, (64, 64), NOWHERE)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture == paint(scene, (64, 64), NOWHERE)).all()
    assert picture.std() > 10


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_named_colour_is_what_one_sees(size: int) -> None:
    for colour in ("red", "green", "blue", "yellow"):
        scene = Scene((Group("car", colour),), "snow", "day", variation=1)
        picture = paint(scene, (size, size), NOWHERE)
        body = picture[int(0.70 * size), int(0.5 * size)]  # the doors, above the wheels
        hue = to_oklch((int(body[0]), int(body[1]), int(body[2])))[2]
        assert hue_distance(hue, to_oklch(COLOURS[colour])[2]) < 15


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
@pytest.mark.parametrize("place", PLACES)
def test_a_picture_of_any_shape_holds_the_whole_scene(place: str, size: tuple[int, int]) -> None:
    scene = Scene((Group("car", "black", 2),), place, "day", variation=1)
    picture = paint(scene, size, NOWHERE)
    assert picture.shape == (size[1], size[0], 3)
    dark = (picture.astype(int).sum(axis=2) < 120).any(axis=0)
    for half in (dark[: size[0] // 2], dark[size[0] // 2 :]):
        assert half.any()  # a car


def test_the_moon_is_round_in_a_wide_picture() -> None:
    scene = Scene((Group("car", "black"),), "snow", "night", variation=1)
    bright = paint(scene, (192, 96), NOWHERE)[:40].astype(int).min(axis=2) > 190
    rows, columns = np.flatnonzero(bright.sum(axis=1) > 3), np.flatnonzero(bright.sum(axis=0) > 3)
    assert abs(len(rows) - len(columns)) <= 2
    assert len(rows) > 8


def test_few_things_stand_alone_in_the_middle_of_the_crowded_world() -> None:
    def alone(name: str) -> float:
        scenes = [sample(world(name), 0, i) for i in range(2000)]
        lone = [s for s in scenes if len(s.groups) == 1 and s.groups[0].count == 1]
        return sum(s.position == "middle" for s in lone) / len(scenes)

    assert alone("crowded") < 0.5 * alone("wide")
    assert world("crowded").kinds == world("wide").kinds


def test_position_moves_the_object() -> None:
    def centre(position: str) -> float:
        scene = Scene((Group("car", "black"),), "snow", "day", position, variation=1)
        row = paint(scene, (64, 64), NOWHERE)[45].astype(int).sum(axis=1)
        return float(np.flatnonzero(row < 300).mean())

    assert centre("left") < 26 < 38 < centre("right")


def test_draws_a_folder(tmp_path: Path) -> None:
    wanted = ["--own-art", "--count", "6", "--size", "32", "--workers", "1"]
    assert draw([*wanted, "--out", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["index"] for r in records] == list(range(6))
    assert len(records[0]["captions"]) == 4
    with Image.open(tmp_path / records[3]["file_name"]) as picture:
        assert picture.size == (32, 32)
    assert (tmp_path / "sheet.png").exists()


def test_pictures_take_the_shapes_in_turn(tmp_path: Path) -> None:
    shapes = ["--shapes", "48x32", "32x32"]
    draw(["--own-art", "--count", "4", "--workers", "1", *shapes, "--out", str(tmp_path)])
    sizes = []
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes == [(48, 32), (32, 32), (48, 32), (32, 32)]
    with pytest.raises(SystemExit):
        draw(["--shapes", "wide", "--out", str(tmp_path)])


def test_shards_hold_the_same_pictures_whatever_the_workers(tmp_path: Path) -> None:
    wanted = ["--own-art", "--count", "6", "--size", "32", "--format", "shards"]
    contents = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        draw([*wanted, "--workers", workers, "--out", str(out)])
        found: dict[str, bytes] = {}
        for shard in sorted(out.glob("*.tar")):
            with tarfile.open(shard) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    found[member.name] = file.read()
        contents.append(found)
    assert contents[0] == contents[1]
    assert len(contents[0]) == 18


def test_an_interrupted_drawing_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--own-art", "--count", "6", "--size", "32", "--format", "shards", "--workers", "2"]
    draw([*wanted, "--out", str(tmp_path)])
    first, second = sorted(tmp_path.glob("*.tar"))
    size = second.stat().st_size
    first.write_bytes(b"drawn before")
    second.unlink()
    draw([*wanted, "--keep", "--out", str(tmp_path)])
    assert first.read_bytes() == b"drawn before"
    assert second.stat().st_size == size
    with pytest.raises(SystemExit):
        draw(["--own-art", "--count", "6", "--keep", "--out", str(tmp_path)])
    assert "--keep is for --format shards" in capsys.readouterr().err


def test_worlds_take_turns_each_for_all_shapes(tmp_path: Path) -> None:
    first, second = world("narrow", own_only=True), world("medium", own_only=True)
    stream = SceneStream(first, 32, 3, tmp_path, ((32, 32), (48, 32)), (second,))
    drawn = [stream.example(index) for index in range(8)]
    assert [example.picture.shape[1] for example in drawn] == [32, 48] * 4
    worlds = [first, first, second, second] * 2
    assert [e.scene for e in drawn] == [sample(w, 3, i) for i, w in enumerate(worlds)]


def test_shards_can_be_the_same_whatever_the_workers(tmp_path: Path) -> None:
    draw(["--own-art", "--count", "5", "--size", "32", "--format", "shards", "--shard", "2",
          "--workers", "1", "--out", str(tmp_path)])  # fmt: skip
    starts = [int(path.stem.split("-")[1]) for path in sorted(tmp_path.glob("*.tar"))]
    assert starts == [0, 2, 4]
