"""Inference speed: exact preparations of loaded networks, and DeepCache, which approximates."""
