"""Libraries of the benchmarks and of the tools that try to break a run."""
