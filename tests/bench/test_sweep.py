import itertools
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image
from sweep_examples import Everywhere, Mixture, Quiet, mixture_subject

from diffgen.bench import reference as references
from diffgen.bench.drift import find_drifts
from diffgen.bench.grid import Grid, PlannedCell, plan_cells
from diffgen.bench.journal import Journal
from diffgen.bench.measure import sample
from diffgen.bench.metrics import latent_rmse
from diffgen.bench.reference import ODE, Limit
from diffgen.bench.runs import has_limit, make_cell
from diffgen.bench.sweep import Sweep
from diffgen.diffusion.noise import StreamNoise
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.errors import DeviceLost, DiffgenError, OutputError

REFERENCE_STEPS = 100


def planned(subject, samplers, steps, schedules="exponential", points=((),)):
    def make_plan(settings, point=()):
        return SamplingPlan.make(settings, subject.config, subject.schedule)

    return plan_cells(Grid.parse(samplers, schedules, steps, points=points), make_plan)


def make_sweep(folder, samplers="ddim", steps="5", *, subject=None, repeats=1, **options):
    subject = subject or mixture_subject()
    schedules = options.pop("schedules", "exponential")
    points = options.pop("points", ((),))
    return Sweep(
        subjects=options.pop("subjects", None) or Everywhere(subject),
        pictures=subject.pictures,
        cells=planned(subject, samplers, steps, schedules, points),
        journal=Journal.open(folder, {}),
        listener=Quiet(),
        reference_steps=options.pop("reference_steps", REFERENCE_STEPS),
        repeats=repeats,
        **options,
    )


def measured(sweep):
    """Run a sweep; its cells by key."""
    list(sweep.run())
    runs = {cell.key: sweep.journal.runs_of(cell.key) for cell in sweep.cells}
    return {cell.key: make_cell(cell, runs[cell.key], {}) for cell in sweep.cells}


def exact(subject, first=0.4):
    """The true solution of the reference's problem for every picture, (pictures, C, h, w)."""
    top, bottom = subject.schedule.sigma_max, subject.schedule.sigma_min
    seeds = subject.seeds(range(len(subject.pictures)))
    start = StreamNoise(seeds, subject.shape, subject.device).draw() * math.hypot(1.0, top)
    return Mixture(first).solution(start, top, bottom)


def test_the_reference_is_the_exact_solution():
    subject = mixture_subject()
    record, latents = references.converge(subject, ODE, REFERENCE_STEPS, lambda d: d)
    error = latent_rmse(latents, exact(subject))
    # Third order at 100 steps on values of about 0.5, with starting steps of lower order.
    assert error < 5e-5
    assert (record.sampler, record.steps, record.nfe) == ("dpmpp_3m", 100, 100)
    assert record.checked_with == "unipc + karras, 100 steps"
    assert record.floor_psnr > 70
    assert record.floor_ssim > 0.9999


@pytest.mark.parametrize("steps", [6, 12, 25, 50, 100])
def test_the_floor_tells_how_far_off_the_reference_is(steps):
    subject = mixture_subject()
    record, latents = references.converge(subject, ODE, steps, lambda d: d)
    error = latent_rmse(latents, exact(subject))
    # An estimate: the two solvers' errors partly cancel in their difference.
    assert error / 5 < record.floor_latent_rmse < 10 * error


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        *(("euler", 1), ("ddim", 1), ("heun", 2), ("dpm2", 2), ("deis", 2), ("dpmpp_2m", 2)),
        ("unipc", 3),  # UniPC of order 2 gains one by its corrector
    ],
)
def test_distances_shrink_with_the_order_of_the_sampler(tmp_path, sampler, order):
    sweep = make_sweep(tmp_path, sampler, "30,60", reference_steps=400)
    sweep.cells = [from_the_same_start(cell) for cell in sweep.cells]
    cells = measured(sweep)
    coarse, fine = (cells[f"{sampler}-exponential-{n}"].latent_rmse.mean for n in (30, 60))
    # First steps of lower order and a reference of its own error blur the slope.
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.4)


def test_a_start_elsewhere_is_part_of_the_distance(tmp_path):
    """k-diffusion starts from sigma * noise; no number of steps mends that."""
    coarse, fine = measured(make_sweep(tmp_path, "heun", "100,200", reference_steps=400)).values()
    assert fine.latent_rmse.mean > 0.9 * coarse.latent_rmse.mean
    assert fine.latent_rmse.mean < 1e-3  # and it is small


def from_the_same_start(cell):
    start = math.hypot(1.0, cell.plan.sigmas[0])
    return replace(cell, plan=replace(cell.plan, start=start))


def test_pictures_improve_as_latents_do(tmp_path):
    cells = list(measured(make_sweep(tmp_path, "dpmpp_2m", "5,10,20,40")).values())
    for worse, better in pairwise(cells):
        assert better.latent_rmse.mean < worse.latent_rmse.mean
        assert better.psnr.mean > worse.psnr.mean
        assert better.ssim.mean > worse.ssim.mean


def test_evaluations_are_counted_at_the_network(tmp_path):
    sweep = make_sweep(tmp_path, "all", "1,6", schedules="karras,default", reference_steps=8)
    cells = measured(sweep)
    promised = {c.key: c.plan.nfe for c in sweep.cells}
    assert {cell.sampler for cell in cells.values()} == set(SAMPLERS)
    for key, cell in cells.items():
        assert cell.status == ("ok" if has_limit(SAMPLERS[cell.sampler]) else "no_limit"), cell
        if promised[key] is None:
            assert cell.nfe > 6
        else:
            assert cell.nfe == promised[key], key


def test_the_announced_work_is_the_work_done(tmp_path):
    sweep = make_sweep(tmp_path, "heun,euler_a,lcm", "3,5", repeats=3)
    announced = sweep.calls()
    list(sweep.run())
    assert sweep.listener.calls == announced
    assert sweep.calls() == 0


@pytest.mark.parametrize("sampler", sorted(s for s in SAMPLERS if SAMPLERS[s].stochastic))
def test_stochastic_samplers_converge_to_a_limit_of_their_own(tmp_path, sampler):
    if not has_limit(SAMPLERS[sampler]):
        cells = measured(make_sweep(tmp_path, sampler, "5"))
        (cell,) = cells.values()
        assert cell.status == "no_limit"
        assert "another picture, not a closer one" in cell.reason
        assert (cell.latent_rmse, cell.psnr, cell.ssim) == (None, None, None)
        assert cell.seconds is not None
        return
    cells = measured(make_sweep(tmp_path, sampler, "10,80"))
    coarse, fine = cells.values()
    assert fine.stochastic
    # Strong order 1 would be a factor of 8. SA-Solver switches its noise on and off at two levels,
    # and a step across such a level is all noisy or not at all: order 1/2 at best.
    factor = 1.5 if sampler == "sa_solver" else 3
    assert fine.latent_rmse.mean < coarse.latent_rmse.mean / factor


def test_solvers_of_one_sde_share_its_limit():
    subject = mixture_subject(seeds=(0,))

    def limit(sampler):
        record, latents = references.converge(subject, Limit(sampler), 200, lambda d: d)
        return record.floor_latent_rmse, latents

    floor, one = limit("euler_a")
    other_floor, other = limit("dpmpp_3m_sde")
    # Of first and of third order, along one path: each is off by about its floor.
    assert latent_rmse(one, other) < 1.5 * (floor + other_floor)
    # The ODE of the same seed leads elsewhere.
    assert latent_rmse(one, limit(None)[1]) > 10 * (floor + other_floor)


def test_a_batch_is_solved_as_its_pictures_alone(monkeypatch):
    subject = mixture_subject(seeds=(3, 4, 5))
    together = references.converge(subject, Limit("euler_a"), 8, lambda d: d)[1]
    monkeypatch.setattr(references, "BATCH", 1)
    assert torch.equal(together, references.converge(subject, Limit("euler_a"), 8, lambda d: d)[1])


def test_a_reference_too_large_for_memory_is_solved_one_by_one():
    def denoiser(indices):
        if len(indices) > 1:
            raise MemoryError
        return Mixture()

    subject = replace(mixture_subject(), denoiser=denoiser)
    latents = references.converge(subject, ODE, 8, lambda d: d)[1]
    assert torch.equal(latents, references.converge(mixture_subject(), ODE, 8, lambda d: d)[1])


def test_every_cell_is_timed_at_least_as_often_as_asked(tmp_path):
    cells = measured(make_sweep(tmp_path, "ddim,euler", "2", repeats=5))
    for cell in cells.values():
        timing = cell.seconds
        assert len(timing.repeats) == 5
        assert timing.low <= timing.median <= timing.high
        assert len(cell.psnr.values) == 2  # pictures
        assert cell.decode_seconds > 0
        assert cell.peak_memory > 50_000_000  # bytes


def test_rounds_go_over_all_cells_before_any_is_repeated(tmp_path):
    sweep = make_sweep(tmp_path, "ddim,euler,heun", "2,3", repeats=3)
    runs = [(run.round, run.cell) for run in sweep.run()]
    assert [number for number, _ in runs] == [0] * 6 + [1] * 6 + [2] * 6
    rounds = [[key for number, key in runs if number == n] for n in range(3)]
    assert len({tuple(keys) for keys in rounds}) == 3
    assert sweep.listener.labels == [
        "reference",
        "warm-up",
        *(f"round {n} of 3" for n in (1, 2, 3)),
    ]


def test_finished_work_is_not_repeated(tmp_path, steady):
    first = make_sweep(tmp_path, "ddim,euler_a", "2,4")
    cells = measured(first)
    again = make_sweep(tmp_path, "ddim,euler_a", "2,4")
    assert again.calls() == 0
    assert measured(again) == cells
    assert again.listener.calls == 0
    more = make_sweep(tmp_path, "ddim,euler_a", "2,4,6")
    assert more.calls() == 6 * 2 + 2 * 6 * 2  # euler_a runs once more along its path
    assert {key: cell for key, cell in measured(more).items() if key in cells} == cells


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
    whole = measured(make_sweep(tmp_path / "whole", "ddim,heun", "2,4"))
    stopped = make_sweep(tmp_path / "cut", "ddim,heun", "2,4")
    runs = stopped.run()
    first = [next(runs) for _ in range(6)]
    runs.close()
    rest = make_sweep(tmp_path / "cut", "ddim,heun", "2,4")
    cells = measured(rest)
    assert len(first) == 6
    assert rest.listener.calls == 2 * (2 + 4 + 3 + 7) - sum(run.nfe for run in first)
    for key, cell in cells.items():
        assert cell.psnr == whole[key].psnr
        assert cell.nfe == whole[key].nfe


@pytest.fixture
def steady(monkeypatch):
    """A machine on which every run takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr("diffgen.bench.measure._now", lambda device: float(next(ticks)))


def slowed(folder, factor):
    """A sweep stopped after its first round, of which the journal says other times."""
    stopped = make_sweep(folder, "ddim,heun,euler", "20,40", repeats=3)
    runs = stopped.run()
    for _ in range(6):
        next(runs)
    runs.close()
    lines = []
    for line in stopped.journal.path.read_text().splitlines():
        entry = json.loads(line)
        if "run" in entry:
            entry["run"]["seconds"] *= factor
        lines.append(json.dumps(entry))
    stopped.journal.path.write_text("\n".join(lines) + "\n")
    return stopped


@pytest.mark.parametrize(("factor", "word"), [(0.1, "slower"), (10.0, "faster")])
def test_times_of_another_machine_state_are_taken_again(tmp_path, factor, word, caplog, steady):
    """One table is not to mix the times of an idle and of a busy machine."""
    stopped = slowed(tmp_path, factor)
    pictures = {run.cell: run.psnr for run in stopped.journal.runs.values()}
    rest = make_sweep(tmp_path, "ddim,heun,euler", "20,40", repeats=3)
    cells = measured(rest)
    assert re.search(rf"machine is [\d.]+ times {word} than when this sweep", caplog.text)
    assert rest.journal.outdated() == []
    for key, cell in cells.items():
        assert cell.seconds.repeats == (1.0, 1.0, 1.0)
        assert cell.psnr.values[0] == pictures[key]
    # What was found out is known the next time, and nothing is left to do.
    again = make_sweep(tmp_path, "ddim,heun,euler", "20,40", repeats=3)
    assert [drift.sitting for drift in again.journal.drifts] == [0]
    assert list(again.run()) == []


def test_times_of_the_same_machine_state_stay(tmp_path, caplog):
    """Controls that scatter to both sides say nothing."""
    stopped = slowed(tmp_path, 1.0)
    cells = {cell.key: cell for cell in stopped.cells}
    old = {key: run.seconds for (key, _), run in stopped.journal.runs.items()}
    journal = Journal.open(tmp_path, {})
    factors = itertools.cycle([0.7, 1.4])
    find_drifts(journal, cells, lambda cell: old[cell.key] * next(factors))
    find_drifts(journal, cells, lambda cell: old[cell.key] * 1.1)
    assert (journal.drifts, journal.outdated(), caplog.text) == ([], [], "")


def test_a_control_that_fails_does_not_end_the_sweep(tmp_path, steady, monkeypatch, caplog):
    """Memory may be short when a sweep is gone on with; what was timed is not known anew then."""
    slowed(tmp_path, 10.0)
    rest = make_sweep(tmp_path, "ddim,heun,euler", "20,40", repeats=3)

    def fails_where_it_only_times(subject, cell, run, listener):
        if run.round >= len(rest.pictures) and cell.plan.spec.name != "euler":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(subject, cell, run, listener)

    monkeypatch.setattr("diffgen.bench.sweep.sample", fails_where_it_only_times)
    cells = measured(rest)
    assert "times faster" in caplog.text  # by euler alone
    assert "ddim-exponential-20 could not be timed again: out of memory" in caplog.text
    assert all(run.seconds is None or run.seconds == 1.0 for run in rest.journal.runs.values())
    assert {key: cell.status for key, cell in cells.items() if "euler" in key} == {
        "euler-exponential-20": "ok",
        "euler-exponential-40": "ok",
    }


def test_no_control_that_works_leaves_the_times_alone(tmp_path, steady, monkeypatch):
    slowed(tmp_path, 10.0)
    cells = {cell.key: cell for cell in make_sweep(tmp_path, "ddim,heun,euler", "20,40").cells}
    journal = Journal.open(tmp_path, {})
    find_drifts(journal, cells, lambda cell: None)
    assert (journal.drifts, journal.outdated()) == ([], [])


def test_a_sweep_stopped_while_it_times_again_does_so_once_more(tmp_path, steady):
    slowed(tmp_path, 10.0)
    rest = make_sweep(tmp_path, "ddim,heun,euler", "20,40", repeats=3).run()
    next(rest)
    rest.close()
    assert len(Journal.open(tmp_path, {}).outdated()) == 5
    assert measured(make_sweep(tmp_path, "ddim,heun,euler", "20,40", repeats=3))
    assert Journal.open(tmp_path, {}).outdated() == []


def test_a_reference_that_has_not_converged_takes_more_steps(tmp_path, caplog):
    sweep = make_sweep(tmp_path, "ddim", "5", reference_steps=6, floor=50.0)
    measured(sweep)
    record = sweep.journal.references[""]
    assert record.floor_psnr >= 50.0
    assert record.steps > 6
    assert "has not converged in 6 steps" in caplog.text
    assert f"taking {record.steps}" in caplog.text


def test_a_reference_stops_at_what_rounding_lets_it_reach(monkeypatch):
    class Coarse(Mixture):
        def __call__(self, x, sigma):
            noise = torch.sin(x * 1e4) * 0.02
            return super().__call__(x, sigma) + noise

    subject = replace(mixture_subject(), denoiser=lambda indices: Coarse())
    record, _ = references.converge_until(subject, ODE, 100, 90.0, lambda d: d)
    assert record.floor_psnr < 90.0
    assert record.steps <= references.MAX_STEPS


def test_a_lost_reference_is_solved_again(tmp_path):
    sweep = make_sweep(tmp_path)
    cells = measured(sweep)
    (tmp_path / "references" / "reference.safetensors").write_bytes(b"cut")
    assert measured(make_sweep(tmp_path)) == cells


def failing(kind):
    """A subject on which only Heun fails, after a while."""

    class Failing(Mixture):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def __call__(self, x, sigma):
            self.calls += 1
            if self.calls > 6:
                if kind == "nan":
                    return x * math.nan
                raise kind
            return super().__call__(x, sigma)

    subject = mixture_subject()
    return replace(subject, denoiser=lambda i: Failing() if len(i) == 1 else Mixture())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nan", "sampling gave numbers that are not finite"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory; try"),
        (MemoryError(), "out of memory; try"),
        (RuntimeError("shapes\nclash"), "RuntimeError: shapes clash"),
        (ZeroDivisionError("division"), "ZeroDivisionError: division"),
        (DiffgenError("as said"), "as said"),
    ],
)
def test_a_failing_cell_is_a_row_with_its_reason(tmp_path, kind, reason):
    cells = measured(make_sweep(tmp_path, "heun,ddim", "5", subject=failing(kind)))
    assert cells["ddim-exponential-5"].status == "ok"
    failed = cells["heun-exponential-5"]
    assert (failed.status, failed.psnr, failed.seconds) == ("failed", None, None)
    assert failed.reason.startswith(reason)


def test_a_device_that_is_lost_ends_the_sweep_and_is_no_cells_failure(tmp_path):
    sweep = make_sweep(tmp_path, "heun,ddim", "5", subject=failing(DeviceLost("the GPU failed")))
    with pytest.raises(DeviceLost):
        list(sweep.run())
    assert not any(run.reason for run in sweep.journal.runs_of("heun-exponential-5"))


def test_a_failed_cell_is_not_tried_again_in_later_rounds(tmp_path):
    sweep = make_sweep(tmp_path, "heun,ddim", "5", subject=failing("nan"), repeats=3)
    runs = list(sweep.run())
    assert sum(run.cell.startswith("heun") for run in runs) == 1
    assert sum(run.cell.startswith("ddim") for run in runs) == 3


def test_cells_without_a_reference_fail_with_its_reason(tmp_path):
    class Broken(Mixture):
        def __call__(self, x, sigma):
            return x * math.nan

    subject = mixture_subject()
    subject = replace(subject, denoiser=lambda i: Broken() if len(i) > 1 else Mixture())
    cells = measured(make_sweep(tmp_path, "ddim,lcm", "5", subject=subject))
    assert cells["ddim-exponential-5"].reason == (
        "no reference to compare with: the reference of dpmpp_3m_sde gave numbers that are not "
        "finite"
    )
    assert cells["lcm-exponential-5"].status == "no_limit"


@pytest.mark.parametrize("lost", ["cells", "references"])
def test_a_folder_that_is_lost_ends_the_sweep(tmp_path, lost):
    sweep = make_sweep(tmp_path)
    (tmp_path / lost).rmdir()
    with pytest.raises(OutputError, match="cannot write into"):
        list(sweep.run())


def test_the_first_picture_of_cells_and_references_is_kept(tmp_path):
    sweep = make_sweep(tmp_path, "ddim,euler_a", "3")
    cells = measured(sweep)
    names = ["reference", "reference-euler_a", "ddim-exponential-3", "euler_a-exponential-3"]
    for name in names:
        with Image.open(tmp_path / "cells" / f"{name}.png") as image:
            assert image.size == (16, 16)
    assert cells["ddim-exponential-3"].picture == "cells/ddim-exponential-3.png"
    assert sweep.journal.references["euler_a"].picture == "cells/reference-euler_a.png"


def test_pictures_are_scored_against_their_prompt(tmp_path):
    asked = []

    def score(image, prompt):
        asked.append((image.size, prompt))
        return 20.0 + len(asked)

    cells = measured(make_sweep(tmp_path, scorer=score, repeats=3))
    # One warm-up, then once for each picture and not again for repeats.
    assert asked == [((16, 16), "a mixture")] * 3
    assert cells["ddim-exponential-5"].clip.values == (22.0, 23.0)


def test_a_planned_cell_has_the_key_of_the_cell():
    subject = mixture_subject()
    (cell,) = planned(subject, "ddim", "4")
    assert isinstance(cell, PlannedCell)
    assert cell.key == "ddim-exponential-4"


FIRST = {3.0: 0.2, 7.0: 0.8}  # the share of the first Gaussian, by guidance
BY_GUIDANCE = tuple((("guidance", scale),) for scale in FIRST)


class Guided:
    """Another mixture for each guidance scale, as guidance leads to another distribution."""

    def cell(self, point):
        return mixture_subject(first=FIRST[dict(point)["guidance"]])

    def reference(self, solution):
        return self.cell(solution)


def test_each_guidance_scale_is_held_against_its_own_exact_solution(tmp_path):
    sweep = make_sweep(tmp_path, "ddim,unipc", "60", points=BY_GUIDANCE, subjects=Guided())
    cells = measured(sweep)
    assert set(sweep.journal.references) == {"guidance_3", "guidance_7"}
    truths = {scale: exact(mixture_subject(), first) for scale, first in FIRST.items()}
    for scale, truth in truths.items():
        file = tmp_path / "references" / f"reference-guidance_{scale:g}.safetensors"
        latents = references.load_latents(file, mixture_subject())
        assert latent_rmse(latents, truth) < 5e-5
        for sampler, near in [("ddim", 0.02), ("unipc", 0.001)]:
            cell = cells[f"{sampler}-exponential-60-guidance_{scale:g}"]
            assert cell.at == {"guidance": scale}
            assert cell.latent_rmse.mean < near
    # What guidance does to the picture is a hundred times as much, and in none of these figures.
    assert latent_rmse(truths[3.0], truths[7.0]) > 0.1


def test_a_reference_is_solved_once_for_all_its_cells(tmp_path):
    sweep = make_sweep(tmp_path, "ddim,heun", "2,4", points=BY_GUIDANCE, subjects=Guided())
    announced = sweep.calls()
    list(sweep.run())
    assert sweep.listener.calls == announced
    labels = [label for label in sweep.listener.labels if label.startswith("reference")]
    assert labels == ["reference of guidance 3", "reference of guidance 7"]
    again = make_sweep(tmp_path, "ddim,heun", "2,4", points=BY_GUIDANCE, subjects=Guided())
    assert again.calls() == 0
    more = (*BY_GUIDANCE, (("guidance", 5.0),))
    FIRST[5.0] = 0.5
    try:
        third = make_sweep(tmp_path, "ddim,heun", "2,4", points=more, subjects=Guided())
        list(third.run())
    finally:
        del FIRST[5.0]
    assert "reference of guidance 5" in third.listener.labels
    assert "reference of guidance 3" not in third.listener.labels


BY_ETA = tuple((("eta", eta),) for eta in (0.0, 0.5, 1.0))


def test_eta_decides_whether_the_ode_is_solved(tmp_path):
    """At eta 0 a sampler has the common reference, above it one of its own for each eta."""
    sweep = make_sweep(tmp_path, "ddim,dpmpp_2m_sde,heun", "20,160", points=BY_ETA)
    sweep.cells = [from_the_same_start(cell) for cell in sweep.cells]
    cells = measured(sweep)
    assert {key for key in cells if key.startswith("heun")} == {
        "heun-exponential-20",
        "heun-exponential-160",
    }
    own = {f"{name}-eta_{eta}" for name in ("ddim", "dpmpp_2m_sde") for eta in ("0.5", "1")}
    assert set(sweep.journal.references) == {"", *own}
    for name in ("ddim", "dpmpp_2m_sde"):
        for eta in ("0", "0.5", "1"):
            coarse, fine = (cells[f"{name}-exponential-{n}-eta_{eta}"] for n in (20, 160))
            assert fine.stochastic == (eta != "0")
            assert fine.limit == ("" if eta == "0" else f"{name}-eta_{eta}")
            # Strong order 1 would be a factor of 8.
            assert fine.latent_rmse.mean < coarse.latent_rmse.mean / 3


@pytest.mark.parametrize(
    "sampler", [s for s in SAMPLERS if "eta" in SAMPLERS[s].options and has_limit(SAMPLERS[s])]
)
def test_without_noise_every_sampler_solves_the_ode(tmp_path, sampler):
    sweep = make_sweep(tmp_path, sampler, "25,100", points=BY_ETA[:1])
    sweep.cells = [from_the_same_start(cell) for cell in sweep.cells]
    coarse, fine = measured(sweep).values()
    assert set(sweep.journal.references) == {""}
    assert fine.latent_rmse.mean < coarse.latent_rmse.mean / 3
    assert fine.latent_rmse.mean < 0.02


def test_a_denoiser_is_used_for_one_run_alone(tmp_path):
    """APG and fast remember the steps before: a second run would begin where the first ended."""

    class Once(Mixture):
        calls = 0

        def __call__(self, x, sigma):
            self.calls += 1
            assert self.calls <= 5
            return super().__call__(x, sigma)

    subject = mixture_subject()
    subject = replace(subject, denoiser=lambda i: Once() if len(i) == 1 else Mixture())
    cells = measured(make_sweep(tmp_path, "euler_a", "5", subject=subject))
    assert cells["euler_a-exponential-5"].status == "ok"
