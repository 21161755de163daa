import shlex

from sweep_examples import cell

from diffgen.bench.command import generate_command
from diffgen.bench.request import SweepRequest

CELL = cell("unipc", 7, settings={"guidance": 4.5})


def words(**changes):
    return shlex.split(generate_command(SweepRequest(**{"prompts": ("a barn",)} | changes), CELL))


def test_all_that_makes_the_picture_is_said():
    assert words(seeds=(5, 6), negative="fog", width=64) == [
        *("diffgen", "generate", "--model", "storybook", "--sampler", "unipc"),
        *("--steps", "7", "--schedule", "karras", "--guidance", "4.5"),
        *("--negative", "fog", "--width", "64", "--seed", "5", "a barn"),
    ]
    assert words(dtype="fp32", device="cpu")[-5:-1] == ["--device", "cpu", "--dtype", "fp32"]
    assert "--no-zero-snr" in words(zero_snr=False)


def test_texts_of_any_kind_come_through_a_shell():
    strange = 'it\'s $HOME; rm -rf `x` "q" \N{SNOWMAN}'
    assert words(prompts=(strange,))[-1] == strange
    assert words(prompts=("--help",))[-2:] == ["--", "--help"]
    assert "--negative=-fog" in words(negative="-fog")


def test_the_values_of_the_axes_are_the_cell_s():
    at = {"guidance": 3.0, "rescale": 0.7, "method": "apg", "eta": 0.5}
    made = cell("ddim", 7, at=at, settings={"guidance": 3.0})
    several = {
        "guidance_scale": (3.0, 5.0),
        "guidance_rescale": (0.0, 0.7),
        "guidance_method": ("cfg", "apg"),
        "eta": (0.0, 0.5),
    }
    request = SweepRequest(prompts=("a barn",), several=several)
    assert shlex.split(generate_command(request, made)) == [
        *("diffgen", "generate", "--model", "storybook", "--sampler", "ddim"),
        *("--steps", "7", "--schedule", "karras", "--eta", "0.5", "--guidance", "3"),
        *("--guidance-method", "apg", "--guidance-rescale", "0.7", "--seed", "0", "a barn"),
    ]


def test_eta_is_said_to_samplers_that_have_it():
    assert "--eta" not in words(eta=0.5, samplers="ddim,unipc")  # CELL is of unipc
