"""`sample-steps`: measure how many steps, and which sampler, suit a model."""
