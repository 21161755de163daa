"""Picture files: opened safely, upright, in sRGB. Imports no torch."""
