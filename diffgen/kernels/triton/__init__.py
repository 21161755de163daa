"""Triton kernels: half precision in and out, float32 inside. Only `ops` imports this folder."""
