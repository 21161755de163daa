"""Picture files: opened safely, upright, in the colours they mean. Imports no torch."""
