"""Readers of files that others made: archives of data sets and TorchScript weights."""
