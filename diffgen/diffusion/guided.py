"""Guidance as a wrapper around the model; the rules are in `diffusion.guidance`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffgen.diffusion.course import Guide, Joined, Scales
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import Guidance

APG_ELEMENTS = 128 * 128 * 4  # size of the latents that APG's largest norm is for


class GuidedDenoiser:
    """A Denoiser for one batch of pictures: all their prompts in one network call.

    Only what the rule needs is computed: without guidance, no unconditional half, unless AND joins
    several prompts. With plain guidance, guides may have scales of their own. One instance per run:
    APG remembers the steps before.
    """

    def __init__(self, model: ModelDenoiser, guides: Sequence[Guide], guidance: Guidance) -> None:
        self._model = model
        self._joined = Joined(guides)
        self._scales = Scales(None if g.scale is None else max(g.scale, 1.0) for g in guides)
        self._guidance = guidance
        self._momentum: Tensor | None = None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        joined, guidance = self._joined, self._guidance
        scale: float | Tensor = 1.0
        if joined.guided and guidance.applies(sigma):
            scale = self._scales.at(guidance.scale(sigma), x.device)
        steered = isinstance(scale, Tensor) or scale != 1.0
        perturbed = guidance.pag > 0.0 and guidance.applies(sigma)
        guided = joined.guided and (steered or joined.composed)
        told = joined.rows(sigma, uncond=guided, perturbed=perturbed)
        states = joined.spread(x)
        outputs = self._model.predict(
            torch.cat([x] * guided + [states] * (1 + perturbed)), sigma, told
        )
        if guided and not perturbed and not joined.composed and self._is_plain:
            return self._model.guided(outputs, x, sigma, scale)
        uncond = outputs[: len(x)].float() if guided else None
        rest = outputs[len(x) if guided else 0 :].float()
        cond = joined.compose(rest[: len(states)], uncond)
        output = cond if uncond is None else self._combine(uncond, cond, x, sigma, scale)
        if perturbed:
            output = output + guidance.pag * (cond - joined.compose(rest[len(states) :], uncond))
        if steered and guidance.rescale:
            output = _rescale_std(output, cond, guidance.rescale)
        return self._model.to_denoised(output, x, sigma)

    @property
    def _is_plain(self) -> bool:
        return self._guidance.name != "apg" and not self._guidance.rescale

    def _combine(
        self, uncond: Tensor, cond: Tensor, x: Tensor, sigma: float, scale: float | Tensor
    ) -> Tensor:
        if self._guidance.name != "apg" or (not isinstance(scale, Tensor) and scale == 1.0):
            return uncond + scale * (cond - uncond)
        return cond + (scale - 1.0) * self._projected(cond - uncond, cond, x, sigma)

    def _projected(self, difference: Tensor, cond: Tensor, x: Tensor, sigma: float) -> Tensor:
        """APG's difference (algorithm 1), as an output of the network.

        The x0 estimate is a multiple of the output plus one of x, so that C - U is a multiple of
        c - u.
        """
        guidance = self._guidance
        denoised = self._model.unclipped(cond, x, sigma)
        gain = self._model.gain(sigma)
        update = gain * difference
        if self._momentum is not None:
            update = update + guidance.apg_momentum * self._momentum
        self._momentum = update
        dims = tuple(range(1, x.ndim))
        largest = guidance.apg_norm * (x[0].numel() / APG_ELEMENTS) ** 0.5
        norm = update.square().sum(dim=dims, keepdim=True).sqrt()
        update = update * (largest / norm).clamp(max=1.0)
        size = denoised.square().sum(dim=dims, keepdim=True)
        along = (update * denoised).sum(dim=dims, keepdim=True) / size * denoised
        projected: Tensor = (update - along + guidance.apg_parallel * along) / gain
        return projected


def _rescale_std(guided: Tensor, cond: Tensor, rescale: float) -> Tensor:
    dims = tuple(range(1, guided.ndim))
    ratio = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return guided * (rescale * ratio + (1.0 - rescale))
