"""The three networks of a latent-diffusion model, and the configs that describe them.

Empty on purpose: `diffgen.models.config` must stay importable without torch.
"""
