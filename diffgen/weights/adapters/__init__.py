"""LoRA files and their relatives, in every layout."""
