"""Text to batches. Never imports jax."""
