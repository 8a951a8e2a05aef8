"""Runs that share all shapes, trained as one program."""
