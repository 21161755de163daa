"""CLIP score of pictures and prompts, by a CLIP model from transformers.

transformers is imported when a scorer is made, not before.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from diffgen.errors import UsageError, WeightsError


class ClipScorer:
    """100 x the cosine between a picture's and its prompt's embedding, at least 0.

    The CLIP score of Hessel et al., arXiv:2104.08718, on the scale most tables use. Runs on the CPU.
    """

    def __init__(self, source: str) -> None:
        """Load by path or hub name. Raises UsageError where there is no such CLIP model."""
        from transformers import AutoConfig, CLIPModel, CLIPProcessor
        from transformers.utils import logging

        silence: Any = logging.disable_progress_bar  # untyped
        silence()
        try:
            kind = AutoConfig.from_pretrained(source).model_type
            if kind != "clip":  # transformers would continue with random weights
                raise UsageError(f"--clip {source} is a {kind} model, not a CLIP model")
            model: Any = CLIPModel.from_pretrained(source)
            self._processor: Any = CLIPProcessor.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"--clip {source} cannot be loaded as a CLIP model: {reason}"
            ) from error
        self._model = model.eval()

    @torch.inference_mode()
    def __call__(self, image: Image.Image, prompt: str) -> float:
        """Raises WeightsError where the score is not a number."""
        inputs = self._processor(
            text=[prompt], images=image.convert("RGB"), return_tensors="pt", truncation=True
        )
        outputs = self._model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(outputs.image_embeds, outputs.text_embeds)
        score = float(cosine)
        if score != score:
            raise WeightsError("the CLIP model's score is not a number; are its weights damaged?")
        return 100.0 * max(score, 0.0)
