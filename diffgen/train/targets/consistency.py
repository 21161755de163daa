"""Latent consistency distillation, as plain functions of tensors.

Luo et al., arXiv:2310.04378 (LCM), after Song et al., arXiv:2303.01469. States x (B, C, h, w) are
variance preserving, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps; t and alpha_bar are (B,).
Everything is float32.
"""

from __future__ import annotations

from torch import Tensor

from diffgen.diffusion.prediction import add_noise, column, noise_in

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0
SAMPLER_STEPS = 50  # the grid that the lcm sampler, and diffusers' LCMScheduler, pick steps from


def distillation_timesteps(count: int, steps: int) -> list[int]:
    """`steps` of `count` training timesteps, ascending, k = count // steps apart up to the last.

    The student learns on these alone (skipping steps, arXiv:2310.04378, section 4.3). A schedule
    with fewer timesteps than `steps` gives all of them, as in the lcm sampler.
    """
    steps = min(steps, count)
    stride = count // steps
    return [(index + 1) * stride - 1 for index in range(steps)]


def boundary_scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out), each (B,): 1 and 0 at t = 0, where the data is, and nearly 0 and 1 above.

    arXiv:2303.01469, appendix C, at time 10 t: the parametrisation of LCM's sampler.
    """
    time = TIMESTEP_SCALING * t.float()
    total = time.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, time / total.sqrt()


def guided(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance on a network's output; scale (B,), where 1 is none.

    arXiv:2310.04378, section 4.2, writes it with w = scale - 1. Both outputs are of the same x, so
    it does not matter whether they are eps, v or x0.
    """
    return uncond + column(scale) * (cond - uncond)


def ddim_step(x: Tensor, x0: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """One step of DDIM with eta 0, the noise in x being what x0 leaves of it.

    arXiv:2010.02502, eq. 12; the solver psi of arXiv:2310.04378, section 4.3.
    """
    return add_noise(x0, noise_in(x, x0, alpha_bar), alpha_bar_next)


def consistency_function(x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """f(x, t) = c_skip x + c_out x0, x0 from the student (arXiv:2310.04378, section 4.1)."""
    c_skip, c_out = boundary_scalings(t)
    return column(c_skip) * x + column(c_out) * x0


def pseudo_huber(output: Tensor, target: Tensor, c: float) -> Tensor:
    """The pseudo-Huber distance of each picture, (B,): sqrt(d^2 + c^2) - c.

    d is the root of the mean squared error, so a picture's pull hardly depends on how far off it is
    (Song and Dhariwal, arXiv:2310.14189, section 3.3, divided by the root of the dimension).
    """
    mean = (output - target).square().flatten(1).mean(dim=1)
    return (mean + c * c).sqrt() - c
