"""`diffgen samplers`."""

import pytest
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.diffusion.guidance import GUIDANCE
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.settings.names import SPACING_NAMES


@pytest.fixture(scope="module")
def lines() -> list[str]:
    result = CliRunner().invoke(app, ["samplers"])
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_every_sampler_has_a_row(lines: list[str]) -> None:
    names = [line.split()[0] for line in lines[1 : len(SAMPLERS) + 1]]
    assert names == list(SAMPLERS)


def test_columns_line_up(lines: list[str]) -> None:
    heading = lines[0]
    start = heading.index("source")
    for line, spec in zip(lines[1:], SAMPLERS.values(), strict=False):
        assert line[start:] == spec.paper
        assert line[: start - 2].rstrip().endswith(spec.label)


def test_settings_and_costs_are_told(lines: list[str]) -> None:
    row = {line.split()[0]: line.split() for line in lines[1 : len(SAMPLERS) + 1]}
    assert row["tcd"][1:5] == ["1", "1", "stream", "eta=0.3"]
    assert row["heun"][1:5] == ["2", "2", "-", "s_churn=0"]
    assert row["dpm_adaptive"][2] == "adaptive"


def test_schedules_are_listed(lines: list[str]) -> None:
    assert lines[-1] == f"schedules: {', '.join(SPACING_NAMES)}"


def test_rules_of_guidance_are_listed(lines: list[str]) -> None:
    told = [line for line in lines if line.startswith("guidance ")]
    assert [line.split()[1].strip(",") for line in told] == list(GUIDANCE)
    for line, rule in zip(told, GUIDANCE.values(), strict=True):
        assert f"{rule.evaluations} evaluations a step: {rule.equation} ({rule.paper})" in line
