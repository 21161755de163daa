"""The mathematics of diffusion: noise schedules, spacings, denoisers and samplers.

Everything between noise and latents happens in sigma space, x = x0 + sigma * noise, by plain
functions that import torch only where they compute.
"""
