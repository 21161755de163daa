"""`train`: new models, LoRAs and distilled ones, from recipes."""
