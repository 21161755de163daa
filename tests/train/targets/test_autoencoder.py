import numpy as np
import pytest
import torch
from PIL import Image
from training import VAE, Listener, make_recipe

from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.draws import Draws
from diffgen.train.targets.autoencoder import pieces
from diffgen.train.targets.networks import load_autoencoder

CPU = torch.device("cpu")
BASE = {"target": "autoencoder", "model": {"vae": VAE}, "data.size": 16, "run.steps": 2}


def as_pixels(picture):
    """A picture as pixels (3, H, W) in -1 to 1."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1


def places(height, width, count=1):
    """Pictures whose first two channels are the row and the column of each pixel."""
    rows = torch.arange(height).view(1, 1, height, 1).expand(count, 1, height, width)
    columns = torch.arange(width).view(1, 1, 1, width).expand(count, 1, height, width)
    return torch.cat([rows, columns, torch.zeros_like(rows)], dim=1).float()


def test_every_piece_is_a_square_of_its_picture_and_corners_are_reached():
    pixels, count = places(7, 9, 400), 400
    cut = pieces(pixels, 5, Draws.of((0,), range(count), CPU))
    assert cut.shape == (count, 3, 5, 5)
    tops, lefts = cut[:, 0, 0, 0].long(), cut[:, 1, 0, 0].long()
    for piece, top, left in zip(cut, tops, lefts, strict=True):
        assert torch.equal(piece, pixels[0, :, top : top + 5, left : left + 5])
    # 15 places: the chance that 400 pieces miss one of them is 15 * (14 / 15)^400 = 1.5e-11.
    assert {*zip(tops.tolist(), lefts.tolist(), strict=True)} == {
        (top, left) for top in range(3) for left in range(5)
    }


def test_a_piece_belongs_to_its_slot_and_step():
    pixels = places(40, 40, 2)
    both = pieces(pixels, 8, Draws.of((0, 1), (3, 8), CPU))
    alone = pieces(pixels[1:], 8, Draws.of((0, 1), (8,), CPU))
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(alone, pieces(pixels[1:], 8, Draws.of((0, 2), (8,), CPU)))


def test_a_piece_may_be_all_there_is():
    pixels = places(8, 8, 2)
    assert torch.equal(pieces(pixels, 8, Draws.of((0,), (1, 2), CPU)), pixels)


def test_training_on_pieces_goes_on_bit_for_bit(squares, tmp_path):
    recipe = make_recipe(squares, {**BASE, "autoencoder.patch": 8, "run.steps": 4})
    whole, late = Listener(), Listener()
    run.train(recipe, tmp_path / "whole", resume=False, reporter=whole)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "late", resume=False, reporter=Listener(fail_at=3))
    run.train(recipe, tmp_path / "late", resume=True, reporter=late)
    assert late.losses == whole.losses[2:]
    assert (tmp_path / "whole" / "model" / "vae" / "config.json").exists()


def test_a_decoder_that_learns_alone_keeps_the_latents(squares, tmp_path):
    run.train(make_recipe(squares, BASE), tmp_path / "base", resume=False, reporter=Listener())
    base = str(tmp_path / "base" / "model")
    recipe = make_recipe(
        squares, {**BASE, "model": {"base": base}, "autoencoder.decoder_only": True}
    )
    run.train(recipe, tmp_path / "more", resume=False, reporter=Listener())
    before, after = load_autoencoder(base), load_autoencoder(str(tmp_path / "more" / "model"))
    assert after.config == before.config
    changed = {
        name.split(".")[0]
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after.state_dict()[name])
    }
    assert changed == {"decoder", "post_quant_conv"}


def taught(folder, squares, **changes):
    """A base of factor 2 and a larger pupil of factor 4, which learned from it; both loaded."""
    run.train(make_recipe(squares, BASE), folder / "base", resume=False, reporter=Listener())
    teacher, larger = str(folder / "base" / "model"), {**VAE, "channels": [8, 8, 8]}
    recipe = make_recipe(
        squares,
        {**BASE, "model": {"vae": larger}, "autoencoder.teacher": teacher, "autoencoder.kl": 1.0}
        | changes,
    )
    listener = Listener()
    run.train(recipe, folder / "pupil", resume=False, reporter=listener)
    models = [load_autoencoder(str(folder / name / "model")) for name in ("base", "pupil")]
    return *models, listener


def test_a_pupil_learns_the_latents_of_pictures_half_as_large(squares, tmp_path):
    teacher, pupil, _ = taught(tmp_path, squares, **{"run.steps": 150, "optimizer.lr": 3e-3})
    assert pupil.config.scaling_factor == teacher.config.scaling_factor
    drawn = [Image.open(path).resize((16, 16)) for path in sorted(squares.glob("*.png"))]
    pixels = torch.stack([as_pixels(picture) for picture in drawn])
    small = torch.nn.functional.avg_pool2d(pixels, 2)
    with torch.no_grad():
        true, ours = teacher.encode(small)[0], pupil.encode(pixels)[0]
    assert ours.shape == true.shape
    # It explains nine tenths of how the latents differ.
    assert (ours - true).square().mean() < 0.1 * true.var()


def last_map(vae, latents):
    """What the decoder's last convolutions are given: (B, C, H, W)."""
    seen = []
    vae.decoder.up_blocks.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        vae.decode(latents)
    return seen[0]


def test_a_new_pupil_begins_by_enlarging_what_its_teacher_draws(squares, tmp_path):
    teacher, pupil, _ = taught(tmp_path, squares, **{"run.steps": 1, "optimizer.lr": 1e-12})
    latents = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    small, large = last_map(teacher, latents), last_map(pupil, latents)
    enlarged = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(large, enlarged)
    theirs, ours = teacher.state_dict(), pupil.state_dict()
    same = {name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])}
    assert {"decoder.conv_out.weight", "encoder.conv_in.weight"} <= same


@pytest.mark.parametrize("channels", [[8, 8], [8, 8, 8]])
def test_more_latent_channels_leave_those_of_the_teacher_as_they_are(squares, tmp_path, channels):
    wider = {**VAE, "channels": channels, "latent_channels": 7}
    teacher, pupil, _ = taught(
        tmp_path, squares, model={"vae": wider}, **{"run.steps": 1, "optimizer.lr": 1e-12}
    )
    latents = torch.randn(2, 7, 5, 3, generator=torch.Generator().manual_seed(0))
    small, large = last_map(teacher, latents[:, :4]), last_map(pupil, latents)
    times = large.shape[-1] // small.shape[-1]
    torch.testing.assert_close(
        large, small.repeat_interleave(times, -1).repeat_interleave(times, -2)
    )
    if channels == [8, 8]:  # the same factor, so the encoder is the teacher's, too
        pixels = latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2).clamp(-1, 1)
        with torch.no_grad():
            for true, ours in zip(teacher.encode(pixels), pupil.encode(pixels), strict=True):
                torch.testing.assert_close(ours[:, :4], true)
                assert ours.shape[1] == 7


def test_channels_beyond_the_teachers_hold_what_those_leave_out(squares, tmp_path):
    def losses(name, channels, **changes):
        model = {"vae": {**VAE, "latent_channels": channels}}
        settings = {**BASE, "model": model, "run.steps": 60, "optimizer.lr": 5e-3, **changes}
        recipe = make_recipe(squares, settings)
        listener = Listener()
        run.train(recipe, tmp_path / name, resume=False, reporter=listener)
        return sum(listener.losses[-10:])

    losses("base", 1)
    teacher = {"autoencoder.teacher": str(tmp_path / "base" / "model")}
    assert losses("wider", 6, **teacher) < 0.95 * losses("as wide", 1, **teacher)


def test_the_teacher_is_read_anew_when_a_run_goes_on(squares, tmp_path):
    """It is no part of the checkpoint; the losses go on to the bit."""
    *_, whole = taught(tmp_path, squares, **{"run.steps": 4})
    teacher, larger = str(tmp_path / "base" / "model"), {**VAE, "channels": [8, 8, 8]}
    recipe = make_recipe(
        squares,
        {**BASE, "model": {"vae": larger}, "autoencoder.teacher": teacher}
        | {"autoencoder.kl": 1.0, "run.steps": 4},
    )
    late = Listener()
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "late", resume=False, reporter=Listener(fail_at=3))
    run.train(recipe, tmp_path / "late", resume=True, reporter=late)
    assert late.losses == whole.losses[2:]


@pytest.mark.parametrize(
    ("vae", "numbers"),
    [({"latent_channels": 3}, "has 3 and 2"), ({"channels": [8]}, "has 4 and 1")],
)
def test_a_teacher_of_other_latents_is_refused(squares, tmp_path, vae, numbers):
    with pytest.raises(ConfigError, match=rf"teacher has 4 latent channels .* but {numbers}"):
        taught(tmp_path, squares, model={"vae": {**VAE, **vae}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "model": {"base": "x"},
                "autoencoder.teacher": "x",
                "autoencoder.decoder_only": True,
            },
            "which decoder_only leaves as it is; drop one",
        ),
        ({"autoencoder.decoder_only": True}, r"decoder_only needs model\.base"),
        ({"autoencoder.patch": 18}, "patch 18 is larger than the pictures, .* side is 16"),
        ({"data.width": 32, "autoencoder.patch": 20}, "larger than the pictures"),
        # Buckets of 16 x 16 pixels go down to sides of 8.
        ({"data.buckets": True, "data.bucket_step": 8, "autoencoder.patch": 16}, "side is 8"),
        ({"autoencoder.patch": 9}, r"autoencoder\.patch, 9, does not divide by the .* 2"),
        ({"data.size": 17}, r"data\.size, 17, does not divide by the .* 2"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(squares, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(squares, {**BASE, **changes})


def test_pieces_that_do_not_fit_a_trained_autoencoder_are_refused(squares, tmp_path):
    run.train(make_recipe(squares, BASE), tmp_path / "a", resume=False, reporter=Listener())
    again = {**BASE, "model": {"base": str(tmp_path / "a" / "model")}, "autoencoder.patch": 9}
    with pytest.raises(ConfigError, match=r"autoencoder\.patch, 9, does not divide"):
        run.train(make_recipe(squares, again), tmp_path / "b", resume=False, reporter=Listener())
    assert not (tmp_path / "b").exists()
