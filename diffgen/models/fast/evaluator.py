"""A loaded U-Net as samplers evaluate it: fused, recorded, seamless, with or without DeepCache."""

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
    """Prepares a U-Net for inference; later changes of weights happen in place."""

    def __init__(self, unet: UNet, device: torch.device) -> None:
        prepare(unet)
        self._unet, self._device = unet, device
        self._edges = Edges(unet)
        self._graphs = self._new_graphs()

    def network(self, *, every: int = 1, first: int = 0) -> Network:
        """The U-Net for one batch, with DeepCache if asked for."""
        if every == 1 and self._graphs is None:
            return self._unet.forward
        # One recording serves runs with and without DeepCache.
        steps: tuple[graphs.Step, graphs.Step] = (self._unet.compute, self._unet.reuse)
        if self._graphs:
            steps = self._graphs.of(steps[0]), self._graphs.of(steps[1])
        return DeepCache(*steps, every=every, first=first)

    def wrap(self, axes: Axes | None) -> None:
        """Set which edges of pictures wrap around."""
        if self._edges.wrap(axes):
            self._graphs = self._new_graphs()  # recordings have the old padding

    def weights_changed(self) -> None:
        """Drop everything cached from the weights before."""
        if self._graphs:
            self._graphs.forget()
        self._edges.renew()  # replaced modules have the default padding

    def _new_graphs(self) -> graphs.Graphs | None:
        wanted = graphs.wanted(self._device)
        return graphs.Graphs(self._unet, graphs.CudaCapture()) if wanted else None
