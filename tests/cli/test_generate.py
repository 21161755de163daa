"""`diffgen generate`: results on stdout, the rest on stderr, and one line for every bad input."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import Result, Run
from PIL import Image
from programs import Process

from diffgen import cli
from diffgen.models.unet import UNet
from diffgen.settings.grammar import parse_interval, parse_numbers

ROOT = Path(__file__).resolve().parent.parent.parent
STORYBOOK = ROOT / "diffgen" / "assets" / "storybook"
UNET = "unet/diffusion_pytorch_model.safetensors"
QUICK = ("--steps", "1", "--seed", "7")
SMALL = ("-W", "128", "-H", "128")


def assert_refused(result: Result, code: int, message: str) -> None:
    """One line on stderr, nothing on stdout, no file."""
    assert result.code == code
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert not [file for file in Path().iterdir() if file.suffix in (".png", ".part")]


# Results


def test_a_picture(run: Run) -> None:
    result = run("Red barn, at sunset", *QUICK)
    assert result.code == 0
    assert result.out == "red-barn-at-sunset-7.png\n"
    assert result.err.startswith('"Red barn, at sunset" seed 7, 1 step of dpmpp_2m, ')
    assert result.err.count("\n") == 1
    with Image.open("red-barn-at-sunset-7.png") as image:
        assert image.size == (256, 256)
        assert image.text["parameters"].startswith(
            "Red barn, at sunset\nSteps: 1, Sampler: DPM++ 2M"
        )


@pytest.mark.parametrize(
    ("size", "noted"),
    [
        (("-W", "512"), True),
        (("-W", "384"), False),
        (("-W", "512", "-H", "512", "--hires", "2"), True),
        (("--hires", "2"), False),
        (("-W", "512", "--init", "x.png"), False),
    ],
)
def test_sizes_that_the_model_never_learned_are_noted(
    run: Run, size: tuple[str, ...], noted: bool
) -> None:
    Image.new("RGB", (256, 256)).save("x.png")
    result = run("x", "--dry-run", *size)
    assert result.code == 0
    assert ("is for pictures of 256 x 256" in result.err) is noted
    if noted:
        assert result.err.startswith("note: storybook is for ")


def test_a_summary_may_be_in_the_folder_that_the_run_makes(run: Run) -> None:
    result = run("x", *QUICK, *SMALL, "-o", "new/pictures/", "--summary", "new/s.json")
    assert result.code == 0
    assert json.loads(Path("new/s.json").read_text())["made"] == 1


def test_quiet_says_nothing_but_results(run: Run) -> None:
    assert run("x", *QUICK, "-q") == (0, "x-7.png\n", "")


def test_verbose_says_more_on_stderr(run: Run) -> None:
    result = run("x", *QUICK, "-v")
    assert result.out == "x-7.png\n"
    assert "storybook from" in result.err
    assert "1 of 256 x 256, dpmpp_2m on beta, 1 steps" in result.err


def test_json_is_one_object_a_picture(run: Run) -> None:
    result = run(
        *("-p", "a", "-p", "b"),
        *QUICK,
        "-c",
        "2",
        "--json",
        "-q",
        "-n",
        "blue",
        "-s",
        "ddim",
        "--eta",
        "0.5",
    )
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [(r["prompt"], r["seed"]) for r in records] == [("a", 7), ("a", 8), ("b", 7), ("b", 8)]
    for record in records:
        assert Path(record["path"]).is_file()
        assert (record["negative"], record["options"]) == ("blue", {"eta": 0.5})
        assert (record["model"], record["sampler"], record["steps"]) == ("storybook", "ddim", 1)
        assert record["timings"].keys() == {"text", "sampling", "decode"}


def test_other_programs_names(run: Run) -> None:
    result = run("a", *QUICK, "-s", "DPM++ 2M Karras", "--json", "-q")
    record = json.loads(result.out)
    assert (record["sampler"], record["schedule"]) == ("dpmpp_2m", "karras")


def test_no_seed_is_a_random_one_that_is_shown(run: Run) -> None:
    seeds = {json.loads(run("a", "--steps", "1", "--json", "-q").out)["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_equal_commands_write_equal_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another process and in this one; the first finds no hashes of the model's files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ("-p", "barn", "-p", "cat", *QUICK, "-o")
    command = [sys.executable, "-m", "diffgen", "generate", *words, "one/"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert run(*words, "two/").code == 0
    first, second = (
        [(tmp_path / name / f"{each}-7.png").read_bytes() for each in ("barn", "cat")]
        for name in ("one", "two")
    )
    assert first == second
    assert list((tmp_path / "diffgen" / "sha256").iterdir())


def test_a_number_is_not_what_to_leave_out(run: Run) -> None:
    """-n is a count elsewhere: here it was one picture, without 200."""
    said = "error: -n says what not to draw, and 200 is a number; -c 200 is so many pictures\n"
    assert run("a barn", "-n", "200", *QUICK) == (2, "", said)
    assert run("a barn", "-n", "6 fingers", *QUICK, "-q").code == 0


def test_an_empty_prompt_is_unconditional(run: Run) -> None:
    note = "note: a prompt is empty: what is drawn is left to the model\n"
    assert run("", *QUICK, "-q") == (0, "unconditional-7.png\n", note)


def test_words_that_were_cut_are_told(run: Run) -> None:
    result = run("a red barn at sunset " * 60 + "zebra", *QUICK, "-q")
    assert result.code == 0
    assert result.err.startswith("note: prompt too long")
    assert result.err.endswith('zebra"\n')
    assert len(result.err) < 300
    assert result.err.count("\n") == 1


def test_existing_files(run: Run) -> None:
    Path("a.png").write_bytes(b"mine")
    refused = run("x", *QUICK, "-o", "a.png")
    assert refused == (2, "", "error: a.png exists; choose another name or add --overwrite\n")
    assert Path("a.png").read_bytes() == b"mine"
    assert run("x", *QUICK, "-q", "-o", "a.png", "--overwrite").code == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_itself_on_stdout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["diffgen", "generate", "x", *QUICK, "-o", "-"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsysbinary.readouterr()
    assert left.value.code == 0
    assert err.count(b"\n") == 1
    with Image.open(io.BytesIO(out)) as image:
        image.load()
        assert image.size == (256, 256)
    assert not list(tmp_path.iterdir())


# Bad input: the request


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no prompt given"),
        (("x", "--steps", "0"), "steps must be at least 1, got 0"),
        (("x", "--steps", "-2"), "steps must be at least 1, got -2"),
        (("x", "-W", "65"), "width 65 does not divide by 16"),
        (("x", "-H", "1"), "height 1 does not divide by 16"),
        (("x", "-c", "0"), "count must be at least 1"),
        (("x", "--batch-size", "0"), "batch size must be at least 1"),
        (("x", "--seed", "-2"), "seeds run from 0"),
        (("x", "-s", "eulr"), 'unknown sampler "eulr". Did you mean "euler"?'),
        (("x", "--schedule", "kerras"), 'unknown schedule "kerras". Did you mean "karras"?'),
        (("x", "--schedule", "scaled_linear"), "is a beta schedule"),
        (("x", "-s", "lms", "--eta", "1"), "sampler lms has no eta"),
        (("x", "--eta", "-1"), "eta must be from 0 to 1, got -1"),
        (("x", "-g", "nan"), "guidance must be a finite number"),
        (("x", "--guidance-rescale", "2"), "from 0 to 1, got 2"),
        (("x", "--guidance-interval", "3"), "--guidance-interval takes LOW-HIGH"),
        (("x", "--guidance-interval", "3,1"), "LOW < HIGH"),
        (("x", "--sigmas", "5,a"), '--sigmas: "a" is not a number'),
        (("x", "--sigmas", "1,5"), "sigmas must be a descending list"),
        (("x", "--sigmas", "5,1", "--steps", "2"), "give one of steps, sigmas and timesteps"),
        (("x", "-m", "storybok"), 'no model named "storybok". Did you mean "storybook"?'),
        (("x", "-m", "./nowhere"), "there is no model at nowhere"),
        (("x", "-o", "a.bmp"), "pictures are png, jpg, jpeg, webp, avif files"),
        (("-p", "x", "-p", "y", "-o", "a.png"), "2 pictures do not fit into a.png"),
        (("x", "-c", "500000000", "-o", "a.png"), "500000000 pictures do not fit"),
        (("x", "-o", "-", "--json"), "--json and -o - both want stdout"),
        (("x", "--rho", "3"), "rho curves the schedules karras and polyexponential, not beta"),
        (("x", "--sigmas", "5,1", "--rho", "3"), "polyexponential, not a list"),
        (("x", "--batch-size", "9" * 20), "batch size must be at most 4096"),
        (("x", "-c", str(2**63)), "count must be at most 1000000000"),
        (("x", "-W", str(2**63)), "width must be at most 65536"),
        (("x", "-H", "9" * 5000), "--height takes "),
        (("x" * 70_000,), "a prompt has at most 64 KiB"),
        (("-",), "--prompts - reads prompts from stdin"),
        (("x", "-m", "https://example.com/a/b"), "is not fetched: download it yourself"),
        (("x", "-m", "owner/name"), "diffgen pull owner/name"),
        (("x", "-m", "~nobody-here/m"), "~nobody-here/m: there is no user nobody-here"),
        (("x", "-o", "~nobody-here/x.png"), "~nobody-here/x.png: there is no user nobody-here"),
        (("x", "-m", "n" * 300), "File name too long"),
        (("x", "--lora", "n" * 300), "File name too long"),
        (("a (red:1.3) barn", "--strict"), 'syntax that is not read: weights, "(red:1.3)"'),
        (("x", "--summary", "no/s.json"), "cannot write no/s.json: there is no folder no"),
        (("x", "--grid", "no/g.png", "-o", "o/"), "cannot write no/g.png: there is no folder no"),
        (("x", "--summary", "."), "cannot write .: it is a folder"),
        (("--prompts", "none.txt"), "cannot read prompts from none.txt: No such file"),
    ],
)
def test_wrong_requests(run: Run, arguments: tuple[str, ...], message: str) -> None:
    assert_refused(run(*arguments), 2, message)


def test_an_output_that_cannot_be_written(run: Run) -> None:
    Path("file").write_text("")
    assert_refused(run("x", *QUICK, "-o", "file/sub/"), 2, "file is a file, and no folder")


# Bad input: the model


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of storybook to be damaged: links, to be replaced and never written through."""
    folder = tmp_path_factory.mktemp("models") / "copy"
    shutil.copytree(STORYBOOK, folder, copy_function=os.symlink)
    return folder


def replace(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        ((STORYBOOK / UNET).read_bytes()[:100_000], "is cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"PK\x03\x04" + bytes(range(1, 100)), "is a pickle"),
    ],
    ids=["empty", "truncated", "lfs", "html", "pickle"],
)
def test_weights_that_are_none(run: Run, model: Path, data: bytes, message: str) -> None:
    replace(model / UNET, data)
    result = run("x", *QUICK, "-m", str(model))
    assert_refused(result, 1, message)
    assert UNET in result.err


def test_weights_that_are_missing(run: Run, model: Path) -> None:
    (model / UNET).unlink()
    assert_refused(run("x", *QUICK, "-m", str(model)), 1, "unet")


def test_a_model_of_pickles(run: Run, model: Path) -> None:
    (model / UNET).rename(model / "unet" / "diffusion_pytorch_model.bin")
    assert_refused(run("x", *QUICK, "-m", str(model)), 1, "pickle")


def test_a_pickled_single_file(run: Run) -> None:
    Path("model.ckpt").write_bytes(b"\x80\x02")
    assert_refused(run("x", *QUICK, "-m", "./model.ckpt"), 1, "pickle")


def test_weights_of_another_model(run: Run, model: Path) -> None:
    file = model / "unet" / "config.json"
    config = json.loads(file.read_text()) | {"cross_attention_dim": 128}
    replace(file, json.dumps(config).encode())
    assert_refused(run("x", *QUICK, "-m", str(model)), 1, "do not belong together")


def test_a_folder_that_is_no_model(run: Run) -> None:
    Path("empty").mkdir()
    assert_refused(run("x", *QUICK, "-m", "./empty"), 1, "empty")


def test_a_config_that_is_no_json(run: Run, model: Path) -> None:
    replace(model / "unet" / "config.json", b"{")
    assert_refused(run("x", *QUICK, "-m", str(model)), 1, "unet/config.json")


# Prompt files


def test_prompts_from_a_file(run: Run) -> None:
    Path("p.txt").write_bytes("\ufeff# head\r\na barn\r\n\r\n  b\u00e4r  \r\n#c\r\n".encode())
    result = run("-p", "first", "--prompts", "p.txt", *QUICK, "-q")
    assert result[:2] == (0, "first-7.png\na-barn-7.png\nb\u00e4r-7.png\n")


def test_a_file_without_prompts(run: Run) -> None:
    Path("p.txt").write_text("# nothing\n\n")
    assert_refused(run("--prompts", "p.txt"), 2, "p.txt has no prompts")


def test_grammars() -> None:
    assert parse_numbers("--x", " 1, 2.5 ") == (1.0, 2.5)
    assert parse_interval("--x", ",") == (0.0, float("inf"))
    assert parse_interval("--x", "0.3,") == (0.3, float("inf"))
    assert parse_interval("--x", ",5") == (0.0, 5.0)


# Signals and pipes


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_signals_leave_what_is_done_and_say_how_to_go_on(
    number: int,
    code: int,
    reason: str,
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    words = ("x", "--steps", "60", "--seed", "7", "-c", "3", "--progress", "json", *SMALL)
    process = start(*words)
    assert process.stderr
    while '"event": "made"' not in process.stderr.readline():
        pass
    assert '"event": "step"' in process.stderr.readline()  # of the second picture
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out) == (code, "x-7.png\n")
    told = f"error: {reason} after 1 of 3 pictures; --seed 8 -c 2 makes the rest"
    assert [line for line in err.splitlines() if '"event": "step"' not in line] == [told]
    assert [path.name for path in tmp_path.iterdir()] == ["x-7.png"]


def test_a_signal_before_the_first_picture(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start("x", "--steps", "400", "-v")
    assert process.stderr
    for line in process.stderr:
        if "400 steps" in line:  # the last thing said before sampling
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (out, err) == ("", "error: stopped by SIGTERM; no picture was made\n")
    assert process.returncode == 143
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_stops_the_run(start: Callable[..., Process]) -> None:
    """What `| head -1` does, at its earliest."""
    process = start("x", "-c", "50", *QUICK, "-q")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == (
        "error: cannot write to stdout: its reader has gone away; stopped\n"
    )
    assert process.wait() == 1


def test_a_fast_picture_says_so(run: Run) -> None:
    settings = (
        "a barn",
        "--steps",
        "4",
        "--seed",
        "7",
        "--json",
        "-q",
        "--overwrite",
        "-o",
        "a.png",
    )
    pictures = {}
    for name, arguments in {"exact": (), "fast": ("--fast",)}.items():
        record = json.loads(run(*settings, *arguments).out)
        with Image.open("a.png") as image:
            pictures[name] = image.convert("RGB").tobytes()
            said = image.text["parameters"]
        assert bool(record["fast"]) == ("Fast: DeepCache 2" in said) == (name == "fast")
    assert pictures["fast"] != pictures["exact"]


def test_foreign_syntax_is_told_once(run: Run) -> None:
    result = run(
        *("-p", "a (red:1.2) barn", "-p", "a [cat|dog]", "-p", "b"), *QUICK, "-q", "-n", "(x:2)"
    )
    assert result.code == 0
    assert result.err == (
        'note: drawn as plain words (--strict refuses it): weights, "(red:1.2)"; '
        'alternation, "[cat|dog]"\n'
    )


def test_words_that_the_model_does_not_know_are_told(run: Run) -> None:
    result = run("-p", "\U0001f431", "-p", "a barn \U0001f431", *QUICK, "-q")
    assert result.code == 0
    assert result.err == 'note: this model\'s vocabulary has no word of "\U0001f431"\n'


def test_half_precision_on_a_cpu_is_told(run: Run) -> None:
    result = run("x", *QUICK, *SMALL, "-q", "--device", "cpu", "--dtype", "fp16")
    assert result == (
        0,
        "x-7.png\n",
        "note: fp16 on a CPU takes many times as long as --dtype auto\n",
    )


# LoRA


@pytest.fixture
def lora(tmp_path: Path) -> str:
    """Random adapters for the attention of the model on board, in the run's folder."""
    import torch

    from diffgen.models.lora import LoraDelta
    from diffgen.weights.adapters.lora import save_lora
    from diffgen.weights.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(STORYBOOK)
    torch.manual_seed(0)
    queries = {
        name.removesuffix(".weight"): info.shape
        for name, info in checkpoint.tensors["unet"].infos.items()
        if name.endswith("attn2.to_v.weight")
    }
    deltas = {
        name: LoraDelta(torch.randn(2, width) / width**0.5, torch.randn(out, 2), 2.0)
        for name, (out, width) in queries.items()
    }
    save_lora(
        tmp_path / "style.safetensors",
        {"unet": deltas},
        checkpoint.config,
        layout="kohya",
        dtype=torch.float32,
        metadata={},
    )
    return "style.safetensors"


def test_a_lora_changes_the_picture_as_much_as_it_is_told(run: Run, lora: str) -> None:
    pixels = {}
    for name, arguments in {
        "none": (),
        "zero": ("--lora", f"{lora}:0"),
        "once": ("--lora", lora),
        "halves": ("--lora", f"{lora}:0.5", "--lora", f"{lora}:0.5"),
    }.items():
        quiet = ("--dtype", "fp32", "--json", "-q", "-o", f"{name}.png")
        result = run("a barn", *QUICK, *arguments, *quiet)
        assert result.code == 0, result.err
        record = json.loads(result.out)
        with Image.open(f"{name}.png") as image:
            pixels[name] = image.convert("RGB").tobytes()
            text = image.text["parameters"]
    assert [(entry["file"], entry["weight"]) for entry in record["loras"]] == [(lora, 0.5)] * 2
    assert 'Lora: "style:0.5 style:0.5"' in text
    short = record["loras"][0]["data_sha256"][:12]
    assert f'Lora hashes: "style: {short}, style: {short}"' in text
    assert pixels["zero"] == pixels["none"] != pixels["once"]
    apart = [abs(a - b) for a, b in zip(pixels["halves"], pixels["once"], strict=True)]
    assert max(apart) <= 1  # rounding of sums in another order, and of levels


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ("nothing.safetensors", 2, "--lora: there is no file nothing.safetensors"),
        ("nothing.safetensors:0.5", 2, "there is no file nothing.safetensors"),
        ("style.safetensors:much", 2, 'the weight "much" is not a number'),
        ("style.safetensors:nan", 2, "weight should be a number from -1000 to 1000"),
        ("style.safetensors:", 2, 'the weight "" is not a number'),
        (f"{STORYBOOK / UNET}", 1, "is no LoRA but a U-Net"),
        ("text.safetensors", 1, "text.safetensors is "),
    ],
)
def test_a_lora_that_cannot_be_used_is_refused(
    run: Run, lora: str, tmp_path: Path, given: str, code: int, message: str
) -> None:
    (tmp_path / "text.safetensors").write_text("not weights at all")
    assert_refused(run("a barn", *QUICK, "--lora", given), code, message)


# Another autoencoder, another prediction


def test_another_autoencoder_is_used_and_recorded(run: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(STORYBOOK / "vae", tmp_path / "dark")
    weights = tmp_path / "dark" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"] -= 1.0
    save_file(tensors, weights)
    means = {}
    for name, arguments in {"own": (), "dark": ("--vae", "dark")}.items():
        quiet = ("--dtype", "fp32", "--json", "-q", "-o", f"{name}.png")
        record = json.loads(run("a barn", *QUICK, *arguments, *quiet).out)
        with Image.open(f"{name}.png") as image:
            means[name] = sum(image.convert("L").resize((1, 1)).tobytes())
            assert ("VAE: dark" in image.text["parameters"]) == (name == "dark")
        assert record["vae"] == (None if name == "own" else "dark")
    assert means["dark"] < means["own"] - 50


def test_what_the_model_predicts_can_be_said(run: Run) -> None:
    made = {}
    for name in ("eps", "v"):
        quiet = ("--dtype", "fp32", "--json", "-q", "-o", f"{name}.png")
        record = json.loads(run("a barn", *QUICK, "--prediction", name, *quiet).out)
        assert record["prediction"] == name
        made[name] = Path(f"{name}.png").read_bytes()
    assert made["eps"] != made["v"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vae", "nothing"), "--vae: there is no file nothing"),
        (("--prediction", "x0"), '--prediction takes eps, v, sample, flow, edm or edm_v, not "x0"'),
    ],
)
def test_what_cannot_be_taken_instead(run: Run, arguments: tuple[str, ...], message: str) -> None:
    assert_refused(run("a barn", *QUICK, *arguments), 2, message)


def test_memory_goes_back_until_the_weights_are_packed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    command = sys.modules["diffgen.cli.generate"]
    monkeypatch.setattr(command, "return_freed_memory", lambda: log.append("return"))
    monkeypatch.setattr("diffgen.cli.memory.keep_freed_memory", lambda: log.append("keep"))
    assert run("a barn", *QUICK, "-q").code == 0
    assert log == ["return", "keep"]


# A step more on it is a function more for whoever follows a prompt: let there be a reason.
WAY = [
    "main",
    "run_command",
    "generate",
    "run",
    "draw",
    "sample",
    "sample_dpmpp_2m",
    "__call__",
    "predict",
]


def test_the_way_of_a_prompt_to_the_network_stays_short(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own functions on the stack where the U-Net begins: one way down, no name twice."""
    package = str(Path(cli.__file__).parent.parent)
    ways, forward = [], UNet.forward

    def traced(*arguments: object) -> object:
        stack = traceback.extract_stack()
        ways.append([frame.name for frame in stack if frame.filename.startswith(package)])
        return forward(*arguments)

    monkeypatch.setattr(UNet, "forward", traced)
    assert run("red barn", *QUICK, "-q").code == 0
    assert ways == [WAY]
