"""Weights of other programs: one naming rule per format, strict, in both directions."""
