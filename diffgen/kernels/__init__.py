"""Operators of the networks: `reference` specifies them, `triton` computes them faster."""
