"""The networks of a latent-diffusion model, and their configs.

Empty on purpose: `diffgen.models.config` must stay importable without torch.
"""
