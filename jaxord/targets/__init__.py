"""Labels and what is derived from them: ranks, groups, reference points, weights, shots."""
