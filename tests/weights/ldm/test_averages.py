"""diffgen.weights.ldm.averages: names of averages, whose dots are found again."""

import pytest

from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.weights.ldm.averages import averaged_name, only_averaged, plain_name
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

ROOT = "model.diffusion_model."
XL = UNetConfig(
    channels=(32, 64, 128),
    blocks=(2, 2, 2),
    depth=(0, 2, 12),
    mid_depth=12,
    num_heads=(1, 1, 2),
    context_dim=32,
    linear_projection=True,
    time_ids_dim=8,
    added_dim=80,
    guidance_dim=8,
)


@pytest.mark.parametrize("config", [UNetConfig(), XL])
def test_every_name_of_a_unet_is_found_again(config: UNetConfig) -> None:
    blocks = ldm_blocks(config)
    names = [ROOT + to_ldm(name, blocks) for name in build_empty(UNet, config).state_dict()]
    assert len({averaged_name(name) for name in names}) == len(names) > 600
    assert [plain_name(averaged_name(name)) for name in names] == names


@pytest.mark.parametrize(
    "key", ["model_ema.decay", "model_ema.num_updates", "model_ema.diffusion_modelwhat0weight", "x"]
)
def test_other_names_are_left(key: str) -> None:
    assert plain_name(key) is None


def test_averages_count_only_where_nothing_else_is() -> None:
    first = f"{ROOT}input_blocks.0.0.weight"
    assert only_averaged([averaged_name(first)])
    assert not only_averaged([averaged_name(first), first])
    assert not only_averaged([])
