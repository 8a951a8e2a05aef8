"""Towers, prompts and heads: linen modules from arrays to named arrays."""
