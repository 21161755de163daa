"""Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024).

The momentum of a weight matrix is replaced by the nearest semi-orthogonal matrix, so that all its
directions learn at one pace; what is no matrix between hidden layers learns by AdamW. Updates are
scaled to the size of AdamW's (Liu et al., arXiv:2502.16982, eq. 4), so one learning rate serves
both. Our own, because torch.optim.Muon takes no convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ADAM_SIZE = 0.2  # root mean square of AdamW's updates; arXiv:2502.16982, section 2.2
NARROW = 16  # channels; layers with fewer on either side touch data, not hidden layers
# One step of the Newton-Schulz iteration is a X + (b A + c A A) X with A = X X^T. These bring every
# singular value in (0, 1] to within about 0.3 of 1 in five steps (Jordan et al., "Tuning").
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def hidden_weights(module: nn.Module) -> list[Tensor]:
    """The weights of linear maps and convolutions that lie between hidden layers."""
    return [
        part.weight
        for part in module.modules()
        if (isinstance(part, nn.Linear) and min(part.in_features, part.out_features) >= NARROW)
        or (isinstance(part, nn.Conv2d) and min(part.in_channels, part.out_channels) >= NARROW)
    ]


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest semi-orthogonal matrices, U V^T of their singular value decompositions.

    matrices: (B, m, n); the result is bfloat16, which five iterations are stable in.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16().contiguous()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # all singular values at most 1
    for _ in range(ITERATIONS):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW, but for `matrices`, whose updates are orthogonal."""

    def __init__(
        self, parameters: Iterable[Tensor], matrices: Iterable[Tensor], **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self._matrices = set(matrices)
        # Fused AdamW takes fp16's overflow upon itself; a step here is skipped as a whole.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter that has a gradient; those of the matrices are used up."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter in self._matrices and parameter.grad is not None:
                    alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for parameters in alike.values():
                self._turn(parameters, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _turn(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        """Matrices of one shape at a time: their products fill the processor better."""
        directions = self._directions(parameters)
        turned = orthogonal(torch.stack([direction.flatten(1) for direction in directions]))
        size = ADAM_SIZE * max(turned.shape[1:]) ** 0.5
        updates = [
            update.reshape(parameter.shape)
            for parameter, update in zip(parameters, turned.float(), strict=True)
        ]
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_add_(parameters, updates, alpha=-lr * size)
        for parameter in parameters:
            parameter.grad = None  # AdamW passes by what has none

    def _directions(self, parameters: list[Tensor]) -> list[Tensor]:
        """The gradients with Nesterov's momentum."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, momenta, MOMENTUM))

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW expects one where it loads a state
        momentum: Tensor = state["momentum"]
        return momentum
