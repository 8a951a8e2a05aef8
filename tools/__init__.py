"""Commands around runs: sweeps, tables, data, weights, benchmarks."""
