"""A loaded U-Net as samplers evaluate it: fused, recorded, with its edges, whole or reused in part."""

from __future__ import annotations

import torch

from diffgen.diffusion.denoiser import Network
from diffgen.models.fast import graphs
from diffgen.models.fast.deep_cache import DeepCache
from diffgen.models.fast.inference import prepare
from diffgen.models.seamless import Edges
from diffgen.models.unet import UNet
from diffgen.settings.editing import Axes


class Evaluator:
    """Prepares a U-Net for inference; from then on its weights are exchanged in their places."""

    def __init__(self, unet: UNet, device: torch.device) -> None:
        prepare(unet)
        self._unet, self._device = unet, device
        self._edges = Edges(unet)
        self._graphs = self._new_graphs()

    def network(self, *, every: int = 1, first: int = 0) -> Network:
        """The U-Net for one batch; its lower levels in some evaluations only (see `DeepCache`)."""
        if every == 1 and self._graphs is None:
            return self._unet.forward
        # One recording serves runs that reuse something and those that do not.
        steps: tuple[graphs.Step, graphs.Step] = (self._unet.compute, self._unet.reuse)
        if self._graphs:
            steps = self._graphs.of(steps[0]), self._graphs.of(steps[1])
        return DeepCache(*steps, every=every, first=first)

    def wrap(self, axes: Axes | None) -> None:
        """Let pictures continue across their edges, or no more."""
        if self._edges.wrap(axes):
            self._graphs = self._new_graphs()  # what was recorded knows other edges

    def weights_changed(self) -> None:
        """Nothing of earlier answers is true any more."""
        if self._graphs:
            self._graphs.forget()
        self._edges.renew()  # modules that were made anew have their own padding

    def _new_graphs(self) -> graphs.Graphs | None:
        wanted = graphs.wanted(self._device)
        return graphs.Graphs(self._unet, graphs.CudaCapture()) if wanted else None
