import math
from copy import deepcopy

import pytest
import torch
from diffusers import LCMScheduler
from torch import nn

from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.prediction import add_noise
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.settings.sampling import Sampling
from diffgen.train.ema import Ema
from diffgen.train.recipe.recipe import DistillRecipe
from diffgen.train.targets import consistency
from diffgen.train.targets.distill import ConsistencyModule, DistillInputs, Point
from diffgen.types import Conditioning, NoiseConfig

CPU = torch.device("cpu")
PREDICTIONS = ("eps", "v", "sample")
GRID = consistency.distillation_timesteps(1000, 50)
NOTHING = Conditioning(torch.zeros(1, 1, 1))

# Gaussian data: the best denoiser is linear, and so is every DDIM step.
MEAN, STD = 0.7, 0.4


def levels():
    """alpha_bar of the grid, with the data's 1 before it, in double precision."""
    alphas_cumprod = NoiseSchedule.from_config(NoiseConfig()).alphas_cumprod
    return torch.tensor([1.0, *(alphas_cumprod[t] for t in GRID)], dtype=torch.float64)


def best_x0(x, alpha_bar):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""
    gain = alpha_bar.sqrt() * STD**2 / (alpha_bar * STD**2 + 1.0 - alpha_bar)
    return MEAN + gain * (x - alpha_bar.sqrt() * MEAN)


def endpoints():
    """(slope, offset) of the whole way from each timestep of the grid to the data, by DDIM."""
    alpha_bar, ways = levels(), [(1.0, 0.0)]
    for k in range(1, len(alpha_bar)):
        x = torch.tensor([0.0, 1.0], dtype=torch.float64)
        eps = (x - alpha_bar[k].sqrt() * best_x0(x, alpha_bar[k])) / (1 - alpha_bar[k]).sqrt()
        near = alpha_bar[k - 1].sqrt() * best_x0(x, alpha_bar[k])
        near = near + (1 - alpha_bar[k - 1]).sqrt() * eps
        slope, offset = ways[-1]
        ways.append((slope * float(near[1] - near[0]), slope * float(near[0]) + offset))
    return ways


class Exact(nn.Module):
    """A network whose consistency function is exact: f(x, t) is where DDIM ends."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction, self.weight = prediction, nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond):
        index = torch.bucketize(t.double(), torch.tensor([0.0, *GRID]).double())
        slope, offset = torch.tensor(endpoints()).double()[index].T[..., None, None, None]
        c_skip, c_out = (c[:, None, None, None] for c in consistency.boundary_scalings(t))
        x0 = (slope * x + offset - c_skip * x) / c_out.clamp(min=1e-9)
        alpha_bar = levels()[index][:, None, None, None]
        eps = (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt().clamp(min=1e-9)
        v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0
        return {"eps": eps, "v": v, "sample": x0}[self.prediction] + self.weight


def module(prediction="eps", network=None, **options):
    network = network or Exact(prediction)
    target = deepcopy(network).requires_grad_(False)
    schedule = NoiseConfig(prediction=prediction)
    return ConsistencyModule(network, target, schedule, DistillRecipe(**options))


def pairs(x0, index):
    """Two points on the ODE of Gaussian data, one DDIM step apart."""
    grid, alpha_bar = torch.tensor([0, *GRID]), levels().float()
    x = add_noise(x0, torch.randn_like(x0), alpha_bar[index])
    mean = best_x0(x, alpha_bar[index][:, None, None, None])
    near = consistency.ddim_step(x, mean, alpha_bar[index], alpha_bar[index - 1])
    return DistillInputs(
        Point(x, grid[index], alpha_bar[index]),
        Point(near, grid[index - 1], alpha_bar[index - 1]),
        NOTHING,
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_exact_consistency_function_has_no_loss(prediction):
    torch.manual_seed(0)
    inputs = pairs(MEAN + STD * torch.randn(50, 3, 4, 4), torch.arange(1, 51))
    # float32: eps is divided by 0.068 at the top of the schedule.
    assert float(module(prediction, loss="mse")(inputs)["loss"].detach()) < 1e-10
    shifted = module(prediction, loss="mse")
    for network in (shifted.unet, shifted.target):
        network.weight.data += 0.1
    assert float(shifted(inputs)["loss"].detach()) > 1e-6


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_it_gives_the_end_of_the_ode_in_one_step_of_lcm(prediction):
    """The weights that the loss asks for, in our sampler and in diffusers', against 50 of DDIM."""
    config = NoiseConfig(prediction=prediction, final_alpha_one=True)
    schedule = NoiseSchedule.from_config(config)
    network = Exact(prediction).requires_grad_(False)

    def solve(settings, denoise):
        plan = SamplingPlan.make(settings, config, schedule)
        return plan.run(denoise, [5], (3, 4, 4), CPU)

    def teacher(x, sigma):
        alpha_bar = torch.tensor(1.0 / (1.0 + sigma * sigma), dtype=torch.float64)
        return best_x0(x * alpha_bar.sqrt(), alpha_bar).float()

    def student(x, sigma):
        return ModelDenoiser(network, schedule, prediction)(x, sigma, NOTHING)

    ddim = Sampling(sampler="ddim", timesteps=tuple(float(t) for t in reversed(GRID)))
    end = solve(ddim, teacher)
    # Our sampler leaves out c_skip, which at t = 999 is 2.5e-9; the rest is float32.
    found = solve(Sampling(sampler="lcm", steps=1), student)
    torch.testing.assert_close(found, end, rtol=0, atol=1e-4)
    assert float(end.std()) > 0.2
    theirs = LCMScheduler(
        prediction_type={"eps": "epsilon", "v": "v_prediction"}.get(prediction, prediction)
    )
    theirs.set_timesteps(1)
    start = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    output = network(start, theirs.timesteps, NOTHING).float()
    last = theirs.step(output, theirs.timesteps[0], start).prev_sample
    torch.testing.assert_close(last, end, rtol=0, atol=2e-4)  # diffusers' float32 tables


MODES = torch.tensor([[1.5, 0.0], [-1.5, 1.0], [0.0, -1.5]])
WIDTH = 0.2


def mixture_x0(x, alpha_bar):
    """E[x0 | x] for three small Gaussians in the plane; x (B, 2, 1, 1)."""
    x, alpha_bar = x.flatten(1), alpha_bar[:, None]
    spread = alpha_bar * WIDTH**2 + 1 - alpha_bar
    apart = x[:, None] - alpha_bar.sqrt()[..., None] * MODES
    weights = (-apart.square().sum(-1) / (2 * spread)).softmax(-1)
    means = MODES + (alpha_bar.sqrt() * WIDTH**2 / spread)[..., None] * apart
    return (weights[..., None] * means).sum(1)[..., None, None]


class Plane(nn.Module):
    """The exact v of the mixture, and a small network beside it that begins at 0."""

    def __init__(self):
        super().__init__()
        self.alpha_bar = torch.tensor(NoiseSchedule.from_config(NoiseConfig()).alphas_cumprod)
        self.layers = nn.Sequential(
            nn.Linear(19, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2)
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x, t, cond):
        alpha_bar = self.alpha_bar[t]
        root, rest = (
            alpha_bar.sqrt()[:, None, None, None],
            (1 - alpha_bar).sqrt()[:, None, None, None],
        )
        v = (root * x - mixture_x0(x, alpha_bar)) / rest
        phase = t[:, None] / 1000 * math.pi / 4 * 2.0 ** torch.arange(8)
        known = torch.cat([x.flatten(1), t[:, None] / 1000, phase.sin(), phase.cos()], dim=1)
        return v + self.layers(known)[..., None, None]


def energy_distance(a, b):
    """Between two sets of points: 0 for one distribution (Szekely and Rizzo, 2013)."""
    across = torch.cdist(a, b).mean()
    return float(2 * across - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def plane_samples(network, sampler, steps=None):
    config = NoiseConfig(prediction="v", final_alpha_one=True)
    schedule = NoiseSchedule.from_config(config)
    model = ModelDenoiser(lambda x, t, cond: network(x, t.long(), cond), schedule, "v")
    timesteps = None if steps else tuple(float(t) for t in reversed(GRID))
    settings = Sampling(sampler=sampler, steps=steps, timesteps=timesteps)
    plan = SamplingPlan.make(settings, config, schedule)
    with torch.no_grad():
        points = plan.run(lambda x, s: model(x, s, NOTHING), range(400), (2, 1, 1), CPU)
    return points.flatten(1)


def test_a_student_comes_near_the_teacher_in_few_steps():
    """Distilled from an exact denoiser; measured against 50 steps of DDIM with it."""
    torch.manual_seed(0)
    teacher, student = Plane(), Plane()
    student.load_state_dict(teacher.state_dict())
    learner = module("v", student, loss="huber")
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3, weight_decay=0.0)
    average = Ema(student, 0.98)
    grid, alpha_bar = torch.tensor([0, *GRID]), levels().float()
    for _ in range(600):
        index = torch.randint(1, 51, (256,))
        x0 = MODES[torch.randint(3, (256,))] + WIDTH * torch.randn(256, 2)
        far = add_noise(x0[..., None, None], torch.randn(256, 2, 1, 1), alpha_bar[index])
        mean = mixture_x0(far, alpha_bar[index])
        near = consistency.ddim_step(far, mean, alpha_bar[index], alpha_bar[index - 1])
        points = (
            Point(far, grid[index], alpha_bar[index]),
            Point(near, grid[index - 1], alpha_bar[index - 1]),
        )
        learner(DistillInputs(*points, NOTHING))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        learner.follow()
        average.update()
    end = plane_samples(teacher, "ddim")
    with average.applied():
        for steps, share in ((1, 0.4), (2, 0.6), (4, 0.5)):  # they came to 0.20, 0.32 and 0.27
            before, after = (
                energy_distance(plane_samples(network, "lcm", steps), end)
                for network in (teacher, student)
            )
            assert after < share * before
