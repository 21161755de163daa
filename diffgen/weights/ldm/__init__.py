"""Models in one file, under the tensor names of the original latent diffusion code."""
