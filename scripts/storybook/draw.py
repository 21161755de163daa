"""Draw captioned storybook scenes: `python -m scripts.storybook.draw --count 1000 --out DIR`.

Writes a folder (PNG files and metadata.jsonl) or WebDataset tar shards, with several processes.
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from diffgen.types import Size
from scripts.storybook.artwork import default_cache, fetch
from scripts.storybook.scene import WORLDS, world
from scripts.storybook.stream import Example, SceneStream

SHARD = 1000  # examples in one tar file, and the share of work one process takes at a time


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.storybook.draw", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=1000, help="how many scenes")
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--size", type=int, default=128, help="side of square pictures in pixels")
    parser.add_argument("--shapes", type=_shape, nargs="+", default=(), metavar="WIDTHxHEIGHT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--world", choices=WORLDS, nargs="+", default=["wide"], help="several take turns"
    )
    parser.add_argument("--format", choices=("folder", "shards"), default="folder")
    parser.add_argument("--shard", type=int, help="scenes in a shard, whatever the workers")
    parser.add_argument("--keep", action="store_true", help="go on: leave whole shards as they are")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first 48 scenes")
    parser.add_argument("--own-art", action="store_true", help="only objects drawn in this project")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="fetched artwork")
    arguments = parser.parse_args(argv)
    if arguments.out is None and arguments.sheet is None:
        parser.error("nothing to write: give --out DIR, --sheet FILE or both")
    if arguments.count < 1 or arguments.size < 16 or arguments.workers < 1:
        parser.error("--count and --workers must be at least 1, --size at least 16")
    if arguments.shard is not None and arguments.shard < 1:
        parser.error("--shard must be at least 1")
    if arguments.keep and arguments.format != "shards":
        parser.error("--keep is for --format shards")
    return arguments


def _shape(text: str) -> Size:
    """WIDTHxHEIGHT, each at least 16. Raises ArgumentTypeError for anything else."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or min(map(int, found.groups())) < 16:
        raise argparse.ArgumentTypeError(f"{text}: no WIDTHxHEIGHT of 16 pixels or more")
    return int(found[1]), int(found[2])


def png(example: Example) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(example.picture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _record(example: Example, index: int) -> dict[str, object]:
    return {"index": index, "captions": example.captions, "scene": asdict(example.scene)}


def write_folder(stream: SceneStream, indices: range, out: Path) -> None:
    """PNG files, and this range's lines of metadata beside them."""
    lines = []
    for index in indices:
        example = stream.example(index)
        name = f"{index:08d}.png"
        (out / name).write_bytes(png(example))
        record = {"file_name": name, "text": example.captions[0], **_record(example, index)}
        lines.append(json.dumps(record) + "\n")
    (out / f"metadata.{indices.start:08d}.part").write_text("".join(lines), encoding="utf-8")


def write_shard(stream: SceneStream, indices: range, out: Path) -> None:
    """One WebDataset tar: NNNNNNNN.png, .txt (a caption a line) and .json for each scene."""
    target = shard_path(out, indices.start)
    partial = target.with_suffix(".part")
    with tarfile.open(partial, "w") as archive:
        for index in indices:
            example = stream.example(index)
            for suffix, content in (
                ("png", png(example)),
                ("txt", "\n".join(example.captions).encode()),
                ("json", json.dumps(_record(example, index)).encode()),
            ):
                entry = tarfile.TarInfo(f"{index:08d}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    partial.replace(target)


def _ranges(first: int, count: int, step: int) -> Iterator[range]:
    for start in range(first, first + count, step):
        yield range(start, min(start + step, first + count))


def shard_path(out: Path, first: int) -> Path:
    """The file of the shard that begins with this scene."""
    return out / f"storybook-{first:08d}.tar"


def draw(
    stream: SceneStream,
    indices: range,
    out: Path,
    *,
    kind: str,
    workers: int,
    shard: int | None = None,
    keep: bool = False,
) -> None:
    """Write the scenes of a range as a `folder` or as `shards`, `workers` processes at once.

    Each takes `shard` scenes at a time, or an equal share, at most SHARD. With `keep`, shards that
    are there were drawn by an earlier call with the same options.
    """
    out.mkdir(parents=True, exist_ok=True)
    write = write_folder if kind == "folder" else write_shard
    share = min(SHARD, -(-len(indices) // workers))
    parts = _ranges(indices.start, len(indices), shard or share)
    jobs = [
        (stream, part, out) for part in parts if not (keep and shard_path(out, part.start).exists())
    ]
    if workers == 1:
        for job in jobs:
            write(*job)
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.starmap(write, jobs, chunksize=1)
    if kind == "folder":
        written = sorted(out.glob("metadata.*.part"))
        text = "".join(part.read_text(encoding="utf-8") for part in written)
        (out / "metadata.jsonl").write_text(text, encoding="utf-8")
        for part in written:
            part.unlink()


def sheet(stream: SceneStream, indices: range, *, columns: int = 8) -> Image.Image:
    """The scenes of a range side by side, a thin white line between them."""
    rows = -(-len(indices) // columns)
    cell = stream.size + 4
    page = Image.new("RGB", (columns * cell, rows * cell), (255, 255, 255))
    for place, index in enumerate(indices):
        row, column = divmod(place, columns)
        picture = Image.fromarray(stream.example(index).picture)
        page.paste(picture, (column * cell + 2, row * cell + 2))
    return page


def main(argv: list[str] | None = None) -> int:
    """Draw what the command line asks for."""
    arguments = _arguments(argv)
    if not arguments.own_art:
        fetch(arguments.cache)
    where, *also = (world(name, own_only=arguments.own_art) for name in arguments.world)
    shapes, turns = tuple(arguments.shapes), tuple(also)
    stream = SceneStream(where, arguments.size, arguments.seed, arguments.cache, shapes, turns)
    indices = range(arguments.first, arguments.first + arguments.count)
    if arguments.sheet is not None:
        small = replace(stream, size=min(stream.size, 192), shapes=())
        sheet(small, indices[:48]).save(arguments.sheet)
    if arguments.out is not None:
        start = time.perf_counter()
        draw(
            stream,
            indices,
            arguments.out,
            kind=arguments.format,
            workers=arguments.workers,
            shard=arguments.shard,
            keep=arguments.keep,
        )
        rate = arguments.count / (time.perf_counter() - start)
        print(f"drew {arguments.count} scenes to {arguments.out} ({rate:.0f}/s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
