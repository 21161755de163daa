"""diffgen.settings.loras: LoRAs as users write them."""

from pathlib import Path

import pytest

from diffgen.errors import UsageError
from diffgen.settings.block_weights import BLOCKS, PRESETS
from diffgen.settings.loras import parse_lora
from diffgen.types import LoraRef


def parse(text: str) -> LoraRef:
    return parse_lora("--lora", text)


FILE = Path("a b.safetensors")
IN04 = tuple(float(block == "IN04") for block in BLOCKS)
SD1 = (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pixel", LoraRef(Path("pixel"))),
        ("pixel:0.8", LoraRef(Path("pixel"), 0.8)),
        ("pixel:0.8:0.5", LoraRef(Path("pixel"), 0.8, te=0.5)),
        ("pixel:-1e-1", LoraRef(Path("pixel"), -0.1)),
        (f"{FILE}:0.8,te=0.5", LoraRef(FILE, 0.8, te=0.5)),
        (f"{FILE},te=0.5,te2=0,unet=2", LoraRef(FILE, te=0.5, te2=0.0, unet=2.0)),
        (f"{FILE}:0.8,steps=0-0.6", LoraRef(FILE, 0.8, steps=(0.0, 0.6))),
        (f"{FILE},steps=.5-", LoraRef(FILE, steps=(0.5, 1.0))),
        (f"{FILE}, in=0, mid=0.5, out=2", LoraRef(FILE, blocks=(0.0, 0.5, 2.0))),
        (r"C:\l\x.safetensors:0.8", LoraRef(Path(r"C:\l\x.safetensors"), 0.8)),
        ("C:/l/x.safetensors", LoraRef(Path("C:/l/x.safetensors"))),
        ("a,b:2", LoraRef(Path("a,b"), 2.0)),
        ("x:2,lbw=OUTD,te=1", LoraRef(Path("x"), 2.0, te=1.0, lbw=PRESETS["OUTD"])),
        ("x,te=1,lbw=0,1,0,0,0,0,0,0,0,0,0,0", LoraRef(Path("x"), te=1.0, lbw=IN04)),
        ("x,start=2,stop=10", LoraRef(Path("x"), start=2, stop=10)),
    ],
)
def test_spellings(text: str, expected: LoraRef) -> None:
    assert parse(text) == expected


def test_a_file_of_that_whole_name(tmp_path: Path) -> None:
    file = tmp_path / "x:1,te=2.safetensors"
    file.touch()
    assert parse(str(file)) == LoraRef(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--lora needs a file or a name"),
        ("x.safetensors:heavy", 'the weight "heavy" is not a number'),
        ("x:nan", "weight should be a number from -1000 to 1000, not"),
        ("x:1e9", "weight should be a number"),
        ("x:1,te=much", "te should be a number"),
        ("x:1:2,te=1", "the weight of the text encoders is given twice"),
        ("x,te=1,te=2", "te is given twice"),
        ("x,tee=1", 'there is no setting "tee". Did you mean "te"'),
        ("x,steps=3", "steps is a part of the run from 0 to 1, such as 0-0.6, not"),
        ("x,steps=0.6-0.2", "steps is a part of the run"),
        ("x,steps=0-20", "steps is a part of the run"),
        ("x,stop=0.5", "stop is the number of a step, not"),
        ("x,lbw=outd", 'lbw has no preset "outd". Did you mean "OUTD"'),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_strengths() -> None:
    ref = LoraRef(FILE, 0.8, te=0.5, te2=0.25, blocks=(0.0, 0.5, 2.0))
    assert ref.strength("text_encoder", "text_model.encoder.layers.0.mlp.fc1", SD1) == 0.5
    assert ref.strength("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1", SD1) == 0.25
    layers = {
        "conv_in": 0.0,
        "down_blocks.0.resnets.0.conv1": 0.0,
        "mid_block.resnets.0.conv1": 0.4,
    }
    layers |= {"up_blocks.1.resnets.0.conv1": 1.6, "conv_out": 1.6, "time_embedding.linear_1": 0.8}
    assert {layer: ref.strength("unet", layer, SD1) for layer in layers} == pytest.approx(layers)
    assert LoraRef(FILE, 0.8, te=0.5).strength("text_encoder_2", "x", SD1) == 0.5
    assert LoraRef(FILE, 0.8, unet=0.3).strength("unet", "x", SD1) == 0.3


def test_strengths_of_blocks() -> None:
    """LDM's entries, of which the last of a level holds its change of size."""
    ref = LoraRef(FILE, 2.0, te=4.0, lbw=tuple(n / 100 for n in range(26)))
    layers = {
        "conv_in": 0.1,
        "down_blocks.0.attentions.1.proj_in": 0.3,
        "down_blocks.0.downsamplers.0.conv": 0.4,
        "down_blocks.3.resnets.1.conv1": 1.2,
        "mid_block.attentions.0.proj_in": 1.3,
        "up_blocks.0.upsamplers.0.conv": 1.6,
        "up_blocks.3.resnets.2.conv1": 2.5,
        "conv_out": 10.0,
        "time_embedding.linear_1": 10.0,
    }
    found = {layer: ref.strength("unet", layer, SD1) * 5 for layer in layers}
    assert found == pytest.approx(layers)
    assert ref.strength("text_encoder", "x", SD1) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *("0.8,te=0.5,in=0,steps=0-0.6", "1", "2,unet=0,te2=1,mid=3", "1,start=2,stop=8"),
        "1,lbw=1" + ",0.5" * 25,
    ],
)
def test_settings_are_written_as_they_are_read(text: str) -> None:
    assert parse(f"x:{text}").settings == text
