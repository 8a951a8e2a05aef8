"""The machine: devices, processes, signals, memory. Knows no ordinal regression."""

# XLA's flag behind --deterministic, known to jaxlib 0.10 to 0.12; an unknown one ends the process.
REPEATABLE = "--xla_gpu_deterministic_ops=true"
