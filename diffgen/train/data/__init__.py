"""Pictures and captions as training batches."""
