import pytest
import torch
from training import VAE, Listener, make_recipe

from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.draws import Draws
from diffgen.train.targets.autoencoder import pieces
from diffgen.train.targets.networks import load_autoencoder

CPU = torch.device("cpu")
BASE = {"target": "autoencoder", "model": {"vae": VAE}, "data.size": 16, "run.steps": 2}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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
