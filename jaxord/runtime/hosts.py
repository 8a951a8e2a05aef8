"""The processes of a run: one, or several that execute the same program on one file system.

A function under `first` does what one process must do for all: write, decide, read changing files.
"""

import functools
import itertools
import json
import os
import sys
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

# A launcher tells the host:port of process 0, the number of processes, and which one this is.
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SILENCE = 20  # seconds without a sign of life after which a process counts as dead
_calls_of_stopping = itertools.count(1)


def start():
    """Joins the processes of one run; must be called before anything touches a device.

    Recognises `srun` with several tasks, and any launcher that sets VARIABLES (all of them, else
    ValueError). Only process 0 keeps its standard output. If a process dies, the others end within
    SILENCE seconds and print a reason; the same command resumes the run.
    """
    variables = {name: os.environ.get(name, "") for name in VARIABLES}
    if any(variables.values()) and not all(variables.values()):
        raise ValueError(f"several processes need all of {VARIABLES}; found {variables}")
    if all(variables.values()):
        address, count, number = variables.values()
        settings = dict(
            coordinator_address=address, num_processes=int(count), process_id=int(number)
        )
        settings["cluster_detection_method"] = "deactivate"
    elif "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # jax gives a task the device of its number on the node. A task that is alone on its node,
        # or sees one device only, takes all it sees.
        alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
        bound = len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
        settings = {"local_device_ids": []} if alone or bound else {}
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        **settings, heartbeat_timeout_seconds=SILENCE, shutdown_timeout_seconds=SILENCE
    )
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def is_first():
    """Whether this process is process 0, the one that writes."""
    return jax.process_index() == 0


def first(function):
    """Runs the function on process 0 only; all processes get its result, JSON, or its ValueError.

    All processes must call it, in the same order, and never inside another such function.
    """

    @functools.wraps(function)
    def call(*arguments, **settings):
        if jax.process_count() == 1:
            return function(*arguments, **settings)
        reply, own_error = {}, None
        if is_first():
            try:
                reply["value"] = function(*arguments, **settings)
            except ValueError as error:
                reply["error"], own_error = str(error), error
        reply = json.loads(_broadcast(json.dumps(reply).encode()))
        if "error" in reply:
            raise own_error or ValueError(reply["error"])
        return reply["value"]

    return call


def _broadcast(text):
    """The bytes of process 0."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    # Powers of two: each length of an array compiles a program.
    padded = np.zeros(1 << max(8, size.bit_length()), np.uint8)
    if is_first():
        padded[:size] = np.frombuffer(text, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:size].tobytes()


def check_same(tree, name):
    """Raises ValueError on all processes if their bytes differ, instead of hanging later."""
    if jax.process_count() == 1:
        return
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        content = leaf if isinstance(leaf, bytes) else np.ascontiguousarray(leaf).view(np.uint8)
        checksum = zlib.crc32(content, checksum)
    checksums = multihost_utils.process_allgather(np.uint32(checksum))
    others = np.flatnonzero(checksums != checksums[0]).tolist()
    if others:
        rule = "all need the same command and files"
        raise ValueError(f"the processes {others} have other {name} than process 0; {rule}")


def stopping(flag):
    """Whether to stop now; true on all processes at the same call, about a second after a signal.

    Called once a step. jax's preemption service tells the others and chooses the call, so no device
    waits. A single process takes `flag`, its signals.Stop.
    """
    if jax.process_count() == 1:
        return bool(flag)
    return multihost_utils.reached_preemption_sync_point(next(_calls_of_stopping))
