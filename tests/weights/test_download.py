"""diffgen.weights.download, hub and ordering: files of a hub on loopback, and its faults."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_server import COMMIT, Hub, serving

from diffgen.configuration import Folders
from diffgen.errors import OutputError, UsageError, WeightsError
from diffgen.weights import download
from diffgen.weights.download import Fetched, fetch
from diffgen.weights.hub import Order, order_of_repository
from diffgen.weights.ordering import order
from diffgen.weights.registry import RemoteFile, known_entries

REPO, FILE = "someone/model", "model.safetensors"
DATA = bytes(range(256)) * 5000  # 1.28 MB
DIGITS = hashlib.sha256(DATA).hexdigest()


def ignore(*_: object) -> None:
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)  # of 10 MB
    with serving(Hub({REPO: {FILE: DATA}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(downloads=tmp_path / "models")


def wanted(**changes: object) -> Order:
    file = RemoteFile(FILE, **{"size": len(DATA), "sha256": DIGITS} | changes)
    return Order(name="model", repository=REPO, revision="main", files=(file,))


def place(folders: Folders) -> Path:
    return folders.downloads / "someone--model" / FILE


def parts(folders: Folders) -> list[Path]:
    return sorted(folders.downloads.rglob("*.part"))


@pytest.mark.parametrize("redirect", [False, True])
def test_a_file_comes_whole_and_checked(hub: Hub, folders: Folders, redirect: bool) -> None:
    hub.redirect = redirect
    told: list[tuple[str, int, int | None]] = []
    found = fetch(wanted(), folders, report=lambda *each: told.append(each))
    assert found == [Fetched(place(folders), len(DATA), DIGITS, len(DATA))]
    assert place(folders).read_bytes() == DATA
    assert told[-2] == (f"fetching {FILE}", len(DATA), len(DATA))
    assert parts(folders) == []


def test_a_file_that_is_there_is_checked_and_not_fetched(hub: Hub, folders: Folders) -> None:
    fetch(wanted(), folders, report=ignore)
    hub.requests.clear()
    (again,) = fetch(wanted(), folders, report=ignore, offline=True)
    assert (again.downloaded, again.sha256) == (0, DIGITS)
    assert hub.requests == []


def test_a_file_with_other_bytes_of_the_same_size_is_fetched_anew(
    hub: Hub, folders: Folders
) -> None:
    place(folders).parent.mkdir(parents=True)
    place(folders).write_bytes(DATA[::-1])
    (found,) = fetch(wanted(), folders, report=ignore)
    assert found.downloaded == len(DATA)
    assert place(folders).read_bytes() == DATA


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, folders: Folders) -> None:
    hub.cut_after = 500_000
    (found,) = fetch(wanted(), folders, report=ignore)
    assert found.sha256 == DIGITS
    assert hub.ranges == [None, "bytes=500000-"]
    assert found.downloaded == len(DATA)


def test_what_was_interrupted_goes_on_from_its_end(hub: Hub, folders: Folders) -> None:
    def interrupt(label: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wanted(), folders, report=interrupt)
    (part,) = parts(folders)
    have = part.stat().st_size
    part.write_bytes(DATA[: have // 2])  # as after a kill: less than was reported
    (found,) = fetch(wanted(), folders, report=ignore)
    assert hub.ranges[-1] == f"bytes={have // 2}-"
    assert found.downloaded == len(DATA) - have // 2
    assert place(folders).read_bytes() == DATA
    assert parts(folders) == []


def test_a_wrong_hash_is_refused_and_thrown_away(hub: Hub, folders: Folders) -> None:
    hub.wrong = True
    with pytest.raises(WeightsError, match=f"sha256 .*, not {DIGITS}.*deleted"):
        fetch(wanted(), folders, report=ignore)
    assert not place(folders).exists()
    assert parts(folders) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size": 7}, "its bytes 1280000, not 7"), ({"sha256": "0" * 64}, f"its sha256 {DIGITS}")],
)
def test_another_file_than_the_known_one_is_not_even_fetched(
    hub: Hub, folders: Folders, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(WeightsError, match=f"another file under {FILE}.*{message}"):
        fetch(wanted(**changes), folders, report=ignore)
    assert hub.ranges == []


def test_without_space_nothing_is_fetched(
    hub: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=download.SPARE_BYTES + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"no space .* it takes 1\.28 MB, there are 67\.1 MB"):
        fetch(wanted(), folders, report=ignore)
    assert hub.requests == []


def test_a_disk_that_fills_up_keeps_what_is_there(
    hub: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(download._Reporting):
        def write(self, data: bytes) -> int:
            self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
            with self._file:
                return super().write(data)

    monkeypatch.setattr(download, "_Reporting", Full)
    with pytest.raises(OutputError, match=r"No space left on device; what is there is kept"):
        fetch(wanted(), folders, report=ignore)
    assert len(parts(folders)) == 1


class Fault(NamedTuple):
    changes: dict[str, object]
    kind: type[Exception]
    message: str


@pytest.mark.parametrize(
    "fault",
    [
        Fault({"gated": (REPO,)}, WeightsError, "is gated: accept its terms at .*/someone/model"),
        Fault({"private": (REPO,)}, UsageError, "no repository someone/model .*or it is private"),
        Fault({"repositories": {REPO: {}}}, UsageError, "no longer has the file"),
        Fault({"refuse": 503}, WeightsError, "answers 503 for someone/model: try again later"),
        Fault({"refuse": 403}, WeightsError, "answers 403 .*hf auth login"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, folders: Folders, fault: Fault) -> None:
    for name, value in fault.changes.items():
        setattr(hub, name, value)
    with pytest.raises(fault.kind, match=fault.message):
        fetch(wanted(), folders, report=ignore)
    assert not place(folders).exists()


def test_a_hub_that_is_not_there(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"^http://127\.0\.0\.1:9 cannot be reached"):
        fetch(wanted(), folders, report=ignore)


@pytest.mark.parametrize("by", ["option", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked(
    hub: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by != "option":
        monkeypatch.setenv(by, "1")
    with pytest.raises(WeightsError, match=r"nothing is fetched offline; it takes 1\.28 MB"):
        fetch(wanted(), folders, report=ignore, offline=by == "option")
    with pytest.raises(WeightsError, match="nothing is asked offline"):
        order(REPO, offline=by == "option")
    assert hub.requests == []


FOLDER = {
    "model_index.json": b"{}",
    "README.md": b"",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"full",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "text_encoder/model.safetensors.index.json": b"{}",
    "text_encoder/model-00001-of-00002.safetensors": b"1",
    "text_encoder/model-00002-of-00002.safetensors": b"2",
    "text_encoder/model.fp16-00001-of-00001.safetensors": b"3",
    "tokenizer/vocab.json": b"{}",
    "safety_checker/model.safetensors": b"no",
}


def test_of_a_model_folder_what_is_needed_is_chosen(hub: Hub) -> None:
    hub.repositories[REPO] = FOLDER
    found = order_of_repository(REPO, None)
    assert (found.revision, found.license) == (COMMIT, "openrail++")
    assert {file.path for file in found.files} == {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "tokenizer/vocab.json",
    }


def test_a_variant_is_chosen_where_there_is_one(hub: Hub) -> None:
    hub.repositories[REPO] = FOLDER
    names = {file.path for file in order_of_repository(REPO, None, "fp16").files}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names
    assert "unet/diffusion_pytorch_model.safetensors" not in names


def test_the_one_file_of_a_repository_needs_no_name(hub: Hub) -> None:
    (file,) = order_of_repository(REPO, None).files
    assert file == RemoteFile(FILE, len(DATA), DIGITS)


def test_several_files_have_to_be_told_apart(hub: Hub) -> None:
    hub.repositories[REPO] = {"a.safetensors": b"", "b.safetensors": b""}
    with pytest.raises(UsageError, match=r"such as a\.safetensors, b\.safetensors; name one: dif"):
        order_of_repository(REPO, None)
    with pytest.raises(UsageError, match=r'no file c\.safetensors\. Did you mean "b\.safetens'):
        order_of_repository(REPO, "c.safetensors")
    assert order_of_repository(REPO, "b.safetensors").name == f"{REPO}:b.safetensors"


def test_files_that_lead_out_of_the_folder_are_passed_over(hub: Hub) -> None:
    hub.repositories[REPO] = {"../evil.safetensors": b"", "/x.safetensors": b"", FILE: DATA}
    assert [file.path for file in order_of_repository(REPO, None).files] == [FILE]


def test_known_names_need_no_hub() -> None:
    entry = known_entries()["sdxl"]
    wanted_files = order("sdxl").order
    assert wanted_files.files == entry.files
    assert wanted_files.size == entry.size == 6938078334
    with pytest.raises(UsageError, match="storybook is on this machine already"):
        order("storybook")
    with pytest.raises(UsageError, match=r'no model "sxdl" is known\. Did you mean "sdxl"\?'):
        order("sxdl")
