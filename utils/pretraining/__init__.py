"""Training a small network on pictures by formula: objective, schedule, loop, checkpoints."""
