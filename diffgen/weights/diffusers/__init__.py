"""Model folders as diffusers writes them: read and written."""
