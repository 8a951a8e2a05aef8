"""Runs that share all shapes, trained as one program."""

from jaxord.population.members import Member, fit

__all__ = ["Member", "fit"]
