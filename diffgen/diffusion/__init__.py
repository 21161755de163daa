"""The mathematics of diffusion: noise schedules, spacings, denoisers and samplers.

Everything between noise and latents happens in sigma space, x = x0 + sigma * noise, by plain
functions. Only `noise` and `denoiser` touch torch at run time.
"""
