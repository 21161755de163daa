"""LoRA and its relatives: every spelling of their files."""
