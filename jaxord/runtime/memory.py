"""Out-of-memory errors as one message: what did not fit, how many bytes it takes, remedies."""

import contextlib
import math

import jax

HOST_IMAGES = "images kept by the host: --config.data.tier=cached"
SMALLER_BATCH = "a smaller batch: --config.data.batch"
REMEDIES = {
    "a training step": (
        SMALLER_BATCH,
        "blocks computed again in the backward pass: --config.model.remat=True",
        "parameters and optimizer split over several devices: --config.model.fsdp=1000000; "
        f"or {HOST_IMAGES}",
    ),
    "an evaluation": (
        "a smaller batch of the evaluation: --config.data.eval_batch",
        HOST_IMAGES,
        "activations of half the size: --config.model.dtype=bfloat16",
    ),
    "placing images": (
        f"{HOST_IMAGES}, with --config.data.cache=<folder> in a file",
        "images decoded on demand: --config.data.tier=stream",
        "smaller stored images: --config.data.stored_size",
    ),
    "a step of all members": (
        "one run after the other: --config.train.together=False",
        "fewer members at a time: --config.fold=<one of the folds>",
        SMALLER_BATCH,
    ),
}


@contextlib.contextmanager
def explained(doing, size, estimate):
    """Turns an out-of-memory error, in compiling or running, into a ValueError with remedies.

    `doing` is a key of REMEDIES, `size` the setting that the need grows with, such as
    "data.batch=32", and `estimate()` says after the error how many bytes it takes.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        total, free = device_memory()
        device = f"; the device has {total:,} bytes, {free:,} of them free"
        title = f"out of memory in {doing} with {size}"
        needed = estimate() + (device if total < math.inf else "")
        remedies = [f"- {remedy}" for remedy in REMEDIES[doing]]
        lines = [title, needed, f"found: {str(error).strip()[:200]}", "ways out:", *remedies]
        raise ValueError("\n  ".join(lines)) from error


def of_program(jitted, *arguments):
    """Says how many bytes a jitted function takes; compiles it again. Donated arguments will do."""

    def shape(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))

    shapes = jax.tree.map(shape, arguments)
    try:
        needed = program_bytes(jitted.lower(*shapes).compile())
        return f"it takes about {needed:,} bytes on each device"
    except jax.errors.JaxRuntimeError:
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
        return f"its arguments alone are {held:,} bytes, and no room is left to compile it"


def program_bytes(compiled):
    """Bytes of a compiled program on one device: arguments, temporaries and results, each once."""
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes
    return held - m.alias_size_in_bytes


def device_memory():
    """(bytes in all, bytes free) of the fullest local device; infinite if the backend has none."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if not all(stats):
        return math.inf, math.inf
    free = min(device["bytes_limit"] - device["bytes_in_use"] for device in stats)
    return min(device["bytes_limit"] for device in stats), free
