import pytest
from training import make_recipe

from diffgen.errors import ConfigError
from diffgen.train.recipe.checks import remarks
from diffgen.train.targets.networks import build_networks


@pytest.mark.parametrize("target", ["diffusion", "contrastive", "distill", "lora"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"buckets": True, "bucket_step": 10}, r"data\.bucket_step, 10, does not divide"),
        ({"buckets": True, "bucket_step": 12}, r"data\.bucket_step, 12, does not divide"),
        ({"size": 130}, r"data\.size, 130, does not divide by the autoencoder's 16"),
        ({"width": 128, "height": 130}, r"data\.height, 130, does not divide"),
    ],
)
def test_pictures_that_do_not_fit_the_autoencoder_are_refused(target, data, message, tmp_path):
    changes = {f"data.{key}": value for key, value in {"size": 128, **data}.items()}
    base = {"target": target, "model": {"base": "storybook"}}
    with pytest.raises(ConfigError, match=message) as caught:
        build_networks(make_recipe(tmp_path, {**base, **changes}))
    assert "\n" not in str(caught.value)


def test_small_pictures_need_buckets_to_keep_their_size(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.enlarge = false needs data\.buckets"):
        make_recipe(tmp_path, {"data.enlarge": False})


@pytest.mark.parametrize(("warmup", "said"), [(7, False), (8, True), (200, True)])
def test_a_warm_up_that_outlasts_the_run_is_told(warmup, said, tmp_path):
    lines = remarks(make_recipe(tmp_path, {"run.steps": 8, "optimizer.warmup": warmup}))
    assert bool(lines) == said
    assert all(f"optimizer.warmup, {warmup} steps, is not over" in line for line in lines)
