"""State, step, optimizer, checkpoints, evaluation and what a run leaves behind."""
