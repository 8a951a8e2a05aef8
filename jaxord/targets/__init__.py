"""From a label to its rank, group, reference point, weight and shot."""
