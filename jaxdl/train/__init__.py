"""TrainState, the pure step, the loop, checkpoints, and the record a run leaves."""
