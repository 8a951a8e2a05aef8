"""Figures of runs and of sweeps: arrays of numpy in, a matplotlib Figure out. Nothing here knows a
model or a workdir."""
