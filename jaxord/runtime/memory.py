"""Out of memory: what did not fit, how many bytes it takes, and the ways out, as one message."""

import contextlib
import math

import jax

WAYS = {  # what was under way -> what to change
    "a training step": (
        "a smaller batch: --config.data.batch",
        "blocks that are computed again in the backward pass: --config.model.remat=True",
        "parameters and optimizer split over several devices: --config.model.fsdp=1000000; or images kept by the host: "
        "--config.data.tier=cached",
    ),
    "an evaluation": (
        "a smaller batch of the evaluation: --config.data.eval_batch",
        "images kept by the host: --config.data.tier=cached",
        "activations of half the size: --config.model.dtype=bfloat16",
    ),
    "placing images": (
        "images kept by the host: --config.data.tier=cached, with --config.data.cache=<folder> in a file",
        "images decoded when they are wanted: --config.data.tier=stream",
        "smaller stored images: --config.data.stored_size",
    ),
    "a step of all members": (
        "one run after the other: --config.train.together=False",
        "fewer members at a time: --config.fold=<one of the folds>",
        "a smaller batch: --config.data.batch",
    ),
}


@contextlib.contextmanager
def explained(doing, size, estimate):
    """Makes the ValueError of it where memory runs out, be it in compiling or in running.

    Args:
      doing: one of WAYS.
      size: the setting that it grows with, "data.batch=32".
      estimate: () -> text, how many bytes it takes; asked afterwards.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        whole, free = device_memory()
        there = (
            f"; the device has {whole:,} bytes, {free:,} of them free" if whole < math.inf else ""
        )
        lines = [
            f"out of memory in {doing} with {size}",
            estimate() + there,
            f"found: {str(error).strip()[:200]}",
        ]
        raise ValueError(
            "\n  ".join([*lines, "ways out:", *(f"- {way}" for way in WAYS[doing])])
        ) from error


def of_program(jitted, *arguments):
    """How many bytes a jitted function takes, as text; the arguments may have been donated already.

    Trap: it is compiled again, unless the persistent cache has it.
    """
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)),
        arguments,
    )
    try:
        return f"it takes about {program_bytes(jitted.lower(*shapes).compile()):,} bytes on each device"
    except jax.errors.JaxRuntimeError:
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
        return f"its arguments alone are {held:,} bytes, and no room is left to compile it"


def program_bytes(compiled):
    """Arguments, temporaries and results of a compiled program on one device, what is written in
    place once."""
    m = compiled.memory_analysis()
    return (
        m.argument_size_in_bytes
        + m.temp_size_in_bytes
        + m.output_size_in_bytes
        - m.alias_size_in_bytes
    )


def device_memory():
    """(bytes in all, bytes free) of the fullest local device; without bounds where the backend
    reports none."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if not all(stats):
        return math.inf, math.inf
    return min(s["bytes_limit"] for s in stats), min(
        s["bytes_limit"] - s["bytes_in_use"] for s in stats
    )
