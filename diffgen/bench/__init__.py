"""`sample-steps`: how many steps, and which sampler, measured on the model at hand."""
