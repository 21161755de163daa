"""Operators of the networks: `reference` says what they compute, `triton` does it faster."""
