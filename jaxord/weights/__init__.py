"""Weights of other programs: their names are turned into ours by one rule, strictly, in both
directions."""
