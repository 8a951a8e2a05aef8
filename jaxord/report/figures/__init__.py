"""Figures of runs and sweeps: numpy arrays in, a matplotlib Figure out."""
