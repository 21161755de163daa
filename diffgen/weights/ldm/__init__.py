"""Models in one file, under the names of the original code of latent diffusion."""
