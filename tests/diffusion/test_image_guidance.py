"""Two guidances, against equation 3 of arXiv:2211.09800 written out."""

from dataclasses import replace

import torch
from torch import Tensor

from diffgen.diffusion.course import Guide, constant_guides
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.image_guidance import ImageGuidedDenoiser
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.types import Conditioning, NoiseConfig

SIGMA = 2.0


def network(x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    assert cond.concat is not None
    return x.cos() + 2 * cond.concat + cond.context.mean((1, 2))[:, None, None, None]


def test_both_scales_pull_as_the_paper_says() -> None:
    x, picture = torch.randn(2, 3, 4, 8, 8)
    cond, uncond = (Conditioning(c, concat=picture) for c in torch.randn(2, 3, 7, 5))
    model = ModelDenoiser(network, NoiseSchedule.from_config(NoiseConfig()), "eps")
    guided = ImageGuidedDenoiser(
        model, constant_guides(cond, uncond), guidance_scale=7.0, image_guidance=1.5
    )
    nothing = Conditioning(uncond.context, concat=torch.zeros_like(picture))
    e_none, e_image, e_both = (model.predict(x, SIGMA, c).double() for c in (nothing, uncond, cond))
    eps = e_none + 1.5 * (e_image - e_none) + 7.0 * (e_both - e_image)
    torch.testing.assert_close(guided(x, SIGMA).double(), x - SIGMA * eps, atol=1e-4, rtol=1e-5)


def test_each_picture_may_have_a_scale_of_its_own_for_the_text() -> None:
    x, picture = torch.randn(2, 2, 4, 8, 8)
    cond, uncond = (Conditioning(c, concat=picture) for c in torch.randn(2, 2, 7, 5))
    model = ModelDenoiser(network, NoiseSchedule.from_config(NoiseConfig()), "eps")
    first, second = constant_guides(cond, uncond)

    def guided(guides: list[Guide], scale: float) -> Tensor:
        return ImageGuidedDenoiser(model, guides, guidance_scale=scale, image_guidance=1.5)(
            x, SIGMA
        )

    mixed = guided([first, replace(second, scale=3.0)], 7.0)
    assert torch.equal(mixed[0], guided([first, second], 7.0)[0])
    assert torch.equal(mixed[1], guided([first, second], 3.0)[1])


def test_scales_of_1_are_the_model_itself() -> None:
    x, picture = torch.randn(2, 1, 4, 8, 8)
    cond, uncond = (Conditioning(c, concat=picture) for c in torch.randn(2, 1, 7, 5))
    model = ModelDenoiser(network, NoiseSchedule.from_config(NoiseConfig()), "v")
    guided = ImageGuidedDenoiser(
        model, constant_guides(cond, uncond), guidance_scale=1.0, image_guidance=1.0
    )
    torch.testing.assert_close(guided(x, SIGMA), model(x, SIGMA, cond))
