import pytest

from diffgen.bench.grid import (
    Grid,
    parse_integers,
    parse_samplers,
    parse_schedules,
    plan_cells,
    shuffled,
)
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UsageError
from diffgen.types import NoiseConfig

CONFIG = NoiseConfig(spacing="karras")
TABLES = NoiseSchedule.from_config(CONFIG)


def make_plan(settings, point=()):
    return SamplingPlan.make(settings, CONFIG, TABLES)


def cells(samplers="ddim", schedules="default", steps="5", **options):
    return plan_cells(Grid.parse(samplers, schedules, steps, **options), make_plan)


def names(text):
    return [name for name, _ in parse_samplers(text)]


def test_names_aliases_and_repetitions():
    assert names("DDIM, k_euler,euler , uni_pc") == ["ddim", "euler", "unipc_bh1"]


def test_a_name_may_carry_its_schedule():
    assert parse_samplers("DPM++ 2M Karras") == (("dpmpp_2m", "karras"),)
    assert [c.key for c in cells("DPM++ 2M Karras", "ays,trailing")] == ["dpmpp_2m-karras-5"]


def test_globs_match_our_names():
    assert names("dpm++_2m*") == ["dpmpp_2m", "dpmpp_2m_sde"]
    assert names("unipc*,ddi?") == ["unipc", "unipc_bh1", "ddim"]


def test_groups_split_all_samplers_in_two():
    both = names("deterministic") + names("stochastic")
    assert sorted(both) == sorted(names("all")) == sorted(SAMPLERS)
    assert {"ddim", "heun", "unipc"} <= set(names("deterministic"))
    assert {"euler_a", "lcm", "dpmpp_sde"} <= set(names("stochastic"))


def test_all_unknown_names_are_told_at_once_with_hints():
    with pytest.raises(UsageError) as caught:
        parse_samplers("dimm,euler,unipcc,zzz*")
    message = str(caught.value)
    assert '"dimm" (did you mean "ddim"?)' in message
    assert '"unipcc" (did you mean "unipc"?)' in message
    assert '"zzz*"' in message
    assert '"euler"' not in message
    with pytest.raises(UsageError, match=r'"kerras" \(did you mean "karras"\?\), "nix"'):
        parse_schedules("kerras,default,nix")


def test_schedules():
    assert parse_schedules("default, Karras,align_your_steps") == (None, "karras", "ays")


@pytest.mark.parametrize("text", ["", " , ", ","])
def test_empty_lists_are_refused(text):
    with pytest.raises(UsageError, match="--samplers is an empty list"):
        parse_samplers(text)
    with pytest.raises(UsageError, match="--schedules is an empty list"):
        parse_schedules(text)
    with pytest.raises(UsageError, match="--steps is an empty list"):
        parse_integers("--steps", text, lowest=1)


def test_numbers_and_ranges():
    assert parse_integers("--steps", "4, 6,10-20:4,18,6", lowest=1) == (4, 6, 10, 14, 18)
    assert parse_integers("--seeds", "0-3", lowest=0) == (0, 1, 2, 3)
    assert parse_integers("--seeds", "7-7", lowest=0) == (7,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "must be 1 or more, got 0"),
        ("4,0-3", "must be 1 or more, got 0"),
        ("4,x", '"x" is no number'),
        ("-4", '"-4" is no number'),
        ("4.5", '"4.5" is no number'),
        ("9-4", '"9-4" is empty'),
        ("4-9:0", '"4-9:0" is empty'),
        ("1-999999999", "more than 10000"),
    ],
)
def test_bad_numbers_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_integers("--steps", text, lowest=1)


def test_every_combination_once():
    keys = [c.key for c in cells("ddim,euler", "default,karras,trailing", "8,5")]
    assert keys == [
        *("ddim-karras-5", "ddim-karras-8", "ddim-trailing-5", "ddim-trailing-8"),
        *("euler-karras-5", "euler-karras-8", "euler-trailing-5", "euler-trailing-8"),
    ]


def test_an_adaptive_sampler_has_one_cell_per_schedule():
    keys = [c.key for c in cells("dpm_adaptive", "karras,exponential", "5,10")]
    assert keys == ["dpm_adaptive-karras-10", "dpm_adaptive-exponential-10"]


def test_a_distilled_sampler_keeps_its_own_default():
    assert [c.key for c in cells("lcm")] == ["lcm-lcm-5"]


@pytest.mark.parametrize("calls", [1, 2, 5, 10, 20])
def test_budgets_of_evaluations_are_met_as_well_as_possible(calls):
    for sampler in ("ddim", "heun", "dpm2", "plms", "dpm_fast"):
        (cell,) = cells(sampler, "karras", str(calls), by_calls=True)
        assert cell.plan.nfe <= calls
        (more,) = cells(sampler, "karras", str(cell.steps + 1))
        assert more.plan.nfe > calls


def test_impossible_steps_are_refused():
    with pytest.raises(UsageError, match="1001 steps"):
        cells(steps="1001")


def test_each_round_has_its_own_order_of_the_same_cells():
    planned = cells("ddim,euler,heun", "karras,trailing", "5,8,10")
    orders = [[c.key for c in shuffled(planned, number)] for number in range(3)]
    assert [sorted(order) for order in orders] == [sorted(c.key for c in planned)] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert orders[1] == [c.key for c in shuffled(planned, 1)]


POINTS = tuple((("guidance", g), ("eta", e)) for g in (3.0, 7.0) for e in (0.0, 1.0))


def test_every_cell_is_there_at_every_point_of_the_axes_that_its_sampler_has():
    keys = [c.key for c in cells("ddim,heun", "karras", "5", points=POINTS)]
    assert keys == [
        *(f"ddim-karras-5-guidance_{g}-eta_{e}" for g in (3, 7) for e in (0, 1)),
        *(f"heun-karras-5-guidance_{g}" for g in (3, 7)),
    ]


def test_eta_is_the_sampler_s():
    made = cells("ddim,heun", "karras", "5", points=POINTS)
    assert [c.plan.options.get("eta") for c in made] == [0.0, 1.0, 0.0, 1.0, None, None]
    assert [c.stochastic for c in made] == [False, True, False, True, False, False]


def test_budgets_of_evaluations_hold_at_each_point():
    made = cells("dpmpp_2s_a", "karras", "10", by_calls=True, points=POINTS)
    assert {c.plan.nfe for c in made} == {9}
    assert [c.plan.options["eta"] for c in made] == [0.0, 1.0, 0.0, 1.0]


def test_a_grid_without_further_axes_has_the_keys_it_always_had():
    keys = [c.key for c in cells("ddim,euler", "karras", "5,8")]
    assert keys == ["ddim-karras-5", "ddim-karras-8", "euler-karras-5", "euler-karras-8"]
