"""Verify that a picture matches its record: draw it again and compare the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.batch.plan import BatchPlan, Job
from diffgen.batch.requests import from_record
from diffgen.batch.stock import Stock
from diffgen.engine.encoding import SUFFIXES, encode
from diffgen.engine.reading import read_settings
from diffgen.errors import DeviceError, PictureError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from diffgen.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Verdict:
    """The largest difference of any channel, of 255, and remarks."""

    difference: int
    notes: tuple[str, ...] = ()


class Verifier:
    """Redraws pictures; the latest model stays loaded."""

    def __init__(self) -> None:
        self._loaded: tuple[Any, Engine] | None = None

    def verify(self, path: Path) -> Verdict:
        """Compare a picture with the result of its record here.

        Raises UsageError for another program's picture, DeviceError for an unavailable device or
        format, and DiffgenError for missing files.
        """
        found = read_settings(path)
        if found.record is None:
            raise UsageError(f"{path} is {found.source}'s: only diffgen's pictures can be verified")
        record = found.record
        if isinstance(record.get("towards"), list):
            raise UsageError(f"{path} is an animation; single frames can be verified")
        plan = BatchPlan(seed=0, all_combinations=False)
        settings = from_record(record) | {"prompt": record["prompt"]}
        if problem := plan.add(1, settings, {}):
            raise problem.error or UsageError(f"{path}: {problem.message}")
        ((stock, batches),) = plan.stocks()
        ((job,),) = batches
        engine = self._engine(stock, record)
        (made,) = engine.draw(job.plan, [_exactly(job, record)])
        return self._compared(path, made.image, made.record, record)

    def _engine(self, stock: Stock, record: Mapping[str, Any]) -> Engine:
        from diffgen.engine.engine import Engine

        device, dtype = record["device"], record["dtype"]
        key = (stock.stamp, stock.model.checkpoint.source, stock.adapters, device, dtype)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            try:
                engine = Engine.load(
                    stock.model,
                    device=device,
                    dtype=dtype,
                    loras=stock.adapters.loras,
                    embeddings=stock.adapters.embeddings,
                )
            except DeviceError as error:
                raise DeviceError(
                    f"made on {device} in {dtype}, which is not here: {error}"
                ) from error
            self._loaded = (key, engine)
        return self._loaded[1]

    def _compared(
        self, path: Path, made: Image.Image, now: Mapping[str, Any], then: Mapping[str, Any]
    ) -> Verdict:
        from io import BytesIO

        from PIL import Image, ImageChops

        notes = [
            f"{name} was {then.get(name)}, is {now[name]}"
            for name in ("version", "libraries", "model_files", "vae_files")
            if name in then and then[name] != now[name]
        ]
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "AVIF")) as image:
                form = SUFFIXES[str(image.format).lower()]
                kept = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise PictureError(f"{path} is damaged: {error}") from error
        if form != "png":
            notes.append(f"a {form} loses something, at a quality that it does not say")
            again = BytesIO(encode(made, now, form=form, metadata=False))
            with Image.open(again, formats=(form.upper(),)) as image:
                made = image.convert("RGB")
        if made.size != kept.size:
            raise UsageError(f"{path} has another size than its record makes; was it changed?")
        histogram = ImageChops.difference(made.convert("RGB"), kept).histogram()
        levels = [i % 256 for i, number in enumerate(histogram) if number]
        return Verdict(max(levels), tuple(notes))


def _exactly(job: Job, record: Mapping[str, Any]) -> Any:
    """The picture of the record; its prompt is taken literally, without choices."""
    from dataclasses import replace

    return replace(job.picture, prompt=record["prompt"])
