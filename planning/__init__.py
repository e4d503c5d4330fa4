"""What a run will need and cost, known before it: compiled for the real devices, without them."""
