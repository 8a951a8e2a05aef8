"""The folder of a run: layout, checkpoints, config, results and log."""
