"""Estimate how long pictures take, from earlier runs of each model and size on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.errors import ConfigError
from diffgen.files import replaced
from diffgen.jsonfile import parse_json

if TYPE_CHECKING:
    from diffgen.batch.plan import Job
    from diffgen.settings.running import Machine

MOST = 1000  # number of remembered kinds of pictures


class Pace:
    """Seconds by kind of picture: of one network evaluation, and of everything else.

    A run on "auto" is stored under that and under the device it resolved to: resolving needs torch,
    which takes longer than all of `--dry-run`. An unusable file only costs the estimate.
    """

    def __init__(self, file: Path | None, machine: Machine) -> None:
        self._file, self._machine = file, machine
        self._known = _read(file)
        self._learned: dict[str, list[float]] = {}

    @classmethod
    def of_user(cls, machine: Machine) -> Pace:
        """The times of this user's runs."""
        from diffgen.weights.hashes import cache_folder

        folder = cache_folder()
        return cls(folder and folder / "pace.json", machine)

    def seconds(self, job: Job) -> float | None:
        """The estimate for a picture; None for an unknown kind."""
        kind = _kind(job, self._machine.device, self._machine.dtype)
        rates, evaluations = self._known.get(kind), job.plan.evaluations
        if rates is None or evaluations is None:
            return None
        return rates[0] * evaluations + rates[1]

    def learn(self, job: Job, record: Mapping[str, Any]) -> None:
        """Add a picture's times. The last of a run wins: the first also packs weights."""
        if evaluations := job.plan.evaluations:
            timings = record["timings"]
            sampling = timings.get("sampling", 0.0)
            rates = [sampling / evaluations, sum(timings.values()) - sampling]
            for device in {self._machine.device, record["device"]}:
                for dtype in {self._machine.dtype, record["dtype"]}:
                    self._learned[_kind(job, device, dtype)] = rates

    def keep(self) -> None:
        """Store the times, merged with those stored meanwhile by other processes."""
        if self._file is None or not self._learned:
            return
        others = {kind: r for kind, r in _read(self._file).items() if kind not in self._learned}
        kept = dict(list({**others, **self._learned}.items())[-MOST:])
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replaced(self._file) as part:
                part.write_text(json.dumps(kept), encoding="ascii")


def _kind(job: Job, device: str, dtype: str) -> str:
    """All that determines an evaluation's time: model, size, guidance, DeepCache, device, dtype."""
    plan = job.plan
    guided = "guided" if plan.guidance_scale != 1 else "plain"
    fast = " fast" if plan.request.fast else ""
    return f"{job.model} {plan.width}x{plan.height} {guided}{fast} {device} {dtype}"


def _read(file: Path | None) -> dict[str, list[float]]:
    with suppress(OSError, ValueError, ConfigError):
        found = parse_json(file.read_text(encoding="ascii"), str(file)) if file else {}
        table = found.items() if isinstance(found, dict) else ()
        return {kind: rates for kind, rates in table if _are_rates(rates)}
    return {}


def _are_rates(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, float) and 0 <= each < math.inf for each in value)
    )
