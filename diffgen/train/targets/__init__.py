"""What a run can train: each target's networks, loss, inputs and results."""
