"""diffgen.weights.finding and shelf: models by name or path, in all places where people keep them."""

import struct
from pathlib import Path

import pytest

from diffgen.configuration import Folders
from diffgen.errors import UsageError
from diffgen.weights import shelf
from diffgen.weights.finding import ModelRef, find_file, resolve
from diffgen.weights.registry import ModelEntry, RemoteFile

ENTRY = ModelEntry(bundled="assets/tiny", description="a model", license="MIT")
HUB = ModelEntry(
    description="d",
    license="MIT",
    repository="a/b",
    revision="r" * 40,
    files=(RemoteFile("big.safetensors", 10),),
)
NOWHERE = Folders(downloads=Path("/nowhere"))


def weights(path: Path, size: int = 10) -> Path:
    """A file of this size that is a safetensors file in its first bytes at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((struct.pack("<Q", 2) + b"{}")[:size].ljust(size, b" "))
    return path


def test_an_existing_folder_is_a_model(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == ModelRef(tmp_path.name, tmp_path)


def test_a_relative_folder_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path / "tiny")
    assert resolve(".").name == "tiny"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model").path == tmp_path / "model"


def test_a_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", {"tiny": ENTRY}).entry is ENTRY
    assert resolve("./tiny", {"tiny": ENTRY}).entry is None


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(UsageError, match=r'"storybok"\. Did you mean "storybook"\? Known: story'):
        resolve("storybok")


def test_paths_that_nothing_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\"xxx.*\.\.\. cannot be read: File name too long$"):
        resolve("x" * 5000)
    with pytest.raises(UsageError, match="~nobody-here/model: there is no user nobody-here"):
        resolve("~nobody-here/model")
    with pytest.raises(UsageError, match="there is no model"):
        resolve("./\0")


@pytest.mark.parametrize("source", ["./no-such-folder", "~/no-such-folder", "no/such/folder"])
def test_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(UsageError, match=r"there is no model at .*no.such.folder"):
        resolve(source)


def test_a_name_finds_its_file_in_the_folders(tmp_path: Path) -> None:
    path = weights(tmp_path / "a" / "sub" / "DreamShaper_8.safetensors")
    folders = Folders(models=(tmp_path / "a",), downloads=tmp_path / "none")
    for name in ("dreamshaper_8", "DreamShaper_8.safetensors", "sub/dreamshaper_8"):
        assert resolve(name, {}, folders) == ModelRef("DreamShaper_8", path)
    with pytest.raises(UsageError, match=r'Did you mean "DreamShaper_8"\?'):
        resolve("DreamShaper_9", {}, folders)


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    for place in "ab":
        weights(tmp_path / place / "x.safetensors")
    folders = Folders(models=(tmp_path / "a", tmp_path / "b"), downloads=tmp_path / "none")
    with pytest.raises(
        UsageError, match=r'"x" is both .*a/x\.safetensors and .*b/x\.safetensors; g'
    ):
        resolve("x", {}, folders)
    assert resolve("x", {}, Folders(models=(tmp_path / "a",), downloads=tmp_path / "none"))


def test_one_file_by_two_ways_is_one_file(tmp_path: Path) -> None:
    path = weights(tmp_path / "a" / "x.safetensors")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    folders = Folders(models=(tmp_path / "b", tmp_path / "a"), downloads=tmp_path / "none")
    assert resolve("x", {}, folders).path.samefile(path)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("model", "models/Stable-diffusion"),
        ("lora", "models/Lora"),
        ("vae", "models/VAE"),
        ("embedding", "embeddings"),
        ("model", "models/checkpoints/sdxl"),
        ("lora", "models/loras"),
        ("vae", "models/vae"),
        ("embedding", "models/embeddings"),
        ("model", "models/sd-1/main"),
        ("lora", "models/sdxl/lora"),
        ("embedding", "models/sd-1/embedding"),
    ],
)
def test_the_folders_of_other_programs(tmp_path: Path, kind: shelf.Kind, place: str) -> None:
    path = weights(tmp_path / "program" / place / "x.safetensors")
    folders = Folders(programs=(tmp_path / "program",), downloads=tmp_path / "none")
    assert [item.path for item in shelf.find("x", folders, kind)] == [path]
    others = {"model", "lora", "vae", "embedding"} - {kind}
    assert not any(shelf.find("x", folders, other) for other in others)


def test_models_of_invoke_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    path = weights(tmp_path / "models" / "0b1c-uuid" / "DreamShaper.safetensors")
    folders = Folders(programs=(tmp_path,), downloads=tmp_path / "none")
    assert list(shelf.items(folders)) == []
    (tmp_path / "invokeai.yaml").write_text("")
    assert resolve("dreamshaper", {}, folders).path == path


def test_a_folder_that_is_a_model_is_one_item(tmp_path: Path) -> None:
    weights(tmp_path / "m" / "tiny" / "unet" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "m" / "tiny" / "model_index.json").write_text("{}")
    folders = Folders(models=(tmp_path / "m",), downloads=tmp_path / "none")
    (item,) = shelf.items(folders)
    assert (item.name, item.size) == ("tiny", 12)
    assert resolve("tiny", {}, folders).path == tmp_path / "m" / "tiny"


def test_a_known_model_that_is_not_here_names_the_command_and_its_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^big is not on .*fetch it, 10 bytes: diffgen pull big$"):
        resolve("big", {"big": HUB}, Folders(downloads=tmp_path))


def test_a_known_model_is_found_where_it_was_downloaded(tmp_path: Path) -> None:
    path = weights(tmp_path / "a--b" / "big.safetensors")
    assert resolve("big", {"big": HUB}, Folders(downloads=tmp_path)).path == path
    assert resolve("a/b", {}, Folders(downloads=tmp_path)).path == path
    weights(path, size=9)
    with pytest.raises(UsageError, match="is not on this machine"):
        resolve("big", {"big": HUB}, Folders(downloads=tmp_path))


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_known_model_is_found_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    root = {"HF_HOME": "hub", "HF_HUB_CACHE": "", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    repository = tmp_path / root / "models--a--b"
    path = weights(repository / "snapshots" / ("d" * 40) / "big.safetensors")
    assert resolve("big", {"big": HUB}, NOWHERE).path == path
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("e" * 40)
    newer = weights(repository / "snapshots" / ("e" * 40) / "big.safetensors")
    assert resolve("a/b", {}, NOWHERE).path == newer


def test_a_known_model_is_found_in_a_users_folder_by_name_and_size(tmp_path: Path) -> None:
    path = weights(tmp_path / "deep" / "big.safetensors")
    folders = Folders(models=(tmp_path,), downloads=tmp_path / "none")
    assert resolve("big", {"big-1": HUB}, folders) == ModelRef("big", path, HUB)
    assert resolve("big-1", {"big-1": HUB}, folders) == ModelRef("big-1", path, HUB)
    assert resolve(str(path), {"big-1": HUB}, folders).entry is HUB
    weights(path, size=11)
    assert resolve(str(path), {"big-1": HUB}, folders).entry is None


def test_a_lora_is_no_model() -> None:
    with pytest.raises(UsageError, match="lcm-lora-sdxl is no model: give it with --lora"):
        resolve("lcm-lora-sdxl")


def test_parts_of_models_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(tmp_path / "Paper Cut.safetensors")
    monkeypatch.setenv("DIFFGEN_LORAS", str(tmp_path))
    assert find_file("paper cut", "lora", option="--lora") == path
    assert find_file(str(path), "lora", option="--lora") == path
    with pytest.raises(UsageError, match=r'--lora: there is no file papercut.*mean "Paper Cut"\?'):
        find_file("papercut", "lora", option="--lora")
    with pytest.raises(
        UsageError, match=r"lcm-lora-sdxl is not on this machine; .*394 MB: diffgen"
    ):
        find_file("lcm-lora-sdxl", "lora", option="--lora")


@pytest.mark.parametrize(
    "name", ["adapter_model", "pytorch_lora_weights", "learned_embeds", "my own"]
)
def test_a_folder_stands_for_the_file_in_it(tmp_path: Path, name: str) -> None:
    path = weights(tmp_path / "saved" / f"{name}.safetensors")
    assert find_file(str(path.parent), "lora", option="--lora") == path
    if name != "my own":
        weights(tmp_path / "saved" / "a.safetensors")
        assert find_file(str(path.parent), "lora", option="--lora") == path
        path.unlink()
    weights(tmp_path / "saved" / "b.safetensors")
    with pytest.raises(
        UsageError, match=r"saved is a folder; name a file in it: it has .*b\.safet"
    ):
        find_file(str(path.parent), "lora", option="--lora")


@pytest.fixture
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own and one of A1111's."""
    monkeypatch.setenv("DIFFGEN_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("DIFFGEN_LORAS", str(tmp_path / "own"))
    monkeypatch.setenv("DIFFGEN_PROGRAMS", str(tmp_path / "webui"))
    return tmp_path


def lora(name: str) -> Path:
    return find_file(name, "lora", option="--lora")


@pytest.mark.parametrize(
    "name",
    ["style", "STYLE", "low/style", "low\\style", "style.safetensors", "low/Style.safetensors"],
)
def test_spellings_of_a_files_name(name: str, loras: Path) -> None:
    file = weights(loras / "webui/models/Lora/low/style.safetensors")
    assert lora(name) == file


def test_a_name_in_its_own_case_comes_first(loras: Path) -> None:
    low, high = (
        weights(loras / "own" / f"{name}.safetensors", 9 + len(name)) for name in ("a", "A")
    )
    high.write_bytes(high.read_bytes() + b" ")
    assert (lora("a"), lora("A.safetensors")) == (low, high)


def test_copies_in_two_folders_are_one_file(loras: Path) -> None:
    first, second = (
        weights(loras / "own/x.safetensors"),
        weights(loras / "webui/models/Lora/x.safetensors"),
    )
    assert lora("x") == first
    second.write_bytes(second.read_bytes()[:-1] + b"\n")
    with pytest.raises(UsageError, match='"x" is both'):
        lora("x")


def test_a_model_folder_with_a_dot_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "dream-8.5"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    assert resolve("dream-8.5", folders=Folders(models=(tmp_path / "models",))).path == folder


def test_a_lora_is_found_by_what_its_trainer_called_it(loras: Path) -> None:
    """A1111 writes that name into prompts by default."""
    header = b'{"__metadata__":{"ss_output_name":"Detail_v3"}}'
    (loras / "own").mkdir()
    file = loras / "own" / "renamed.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    (loras / "own" / "broken.safetensors").write_bytes(b"<html>")
    assert lora("detail_v3") == file
    with pytest.raises(UsageError, match="there is no file detail_v2"):
        lora("detail_v2")
