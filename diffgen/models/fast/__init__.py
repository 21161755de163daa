"""What makes loaded networks faster without changing what they compute, and DeepCache, which does."""
