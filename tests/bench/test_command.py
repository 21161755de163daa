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
