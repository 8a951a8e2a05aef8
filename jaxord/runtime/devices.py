"""Where arrays and processes are.

One mesh axis, `data`: the batch is split over it, large parameters may be, everything else is
  replicated.

A run may have several processes, on one host or on many, which execute the same program on one file
system. What only one of them may do (write, read what is being written, decide) is a function under
`first`; every other line runs on all.
"""

import functools
import itertools
import json
import math
import os
import sys
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

PLAIN = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)  # how a plain launcher tells of the others
SILENCE = 20  # seconds after which a process that says nothing is dead, and the others end
_looks = itertools.count(1)


def start():
    """Joins the processes that a launcher has started for one run; to be called before anything
    touches a device.

    `srun` with several tasks is known by SLURM's variables, any other launcher by those of PLAIN:
    host:port of process 0, the number of processes, and which one this is. Without either nothing
    happens. Process 0 alone has a standard output. A process that dies takes the others with it
    within SILENCE seconds: they print a reason and the same command goes on.

    Raises:
      ValueError: some of PLAIN is missing.
    """
    plain = {name: os.environ.get(name, "") for name in PLAIN}
    if any(plain.values()):
        if not all(plain.values()):
            raise ValueError(f"several processes need all of {', '.join(PLAIN)}; found {plain}")
        address, count, number = plain.values()
        found = {
            "coordinator_address": address,
            "num_processes": int(count),
            "process_id": int(number),
        }
        found["cluster_detection_method"] = "deactivate"
    elif "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # jax gives a task the device of its number on the node; one that is alone there, or sees
        # one only, takes all it sees.
        alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
        bound = len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
        found = {"local_device_ids": []} if alone or bound else {}
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        **found, heartbeat_timeout_seconds=SILENCE, shutdown_timeout_seconds=SILENCE
    )
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def is_first():
    """Whether this process is the one that writes; true where there is no other."""
    return jax.process_index() == 0


def first(function):
    """The function as process 0 alone executes it, while the others wait: they get what it returns,
    or its ValueError.

    All processes must call it, in the same order, and never from inside another such function; it
    returns what JSON holds.
    """

    @functools.wraps(function)
    def call(*arguments, **settings):
        if jax.process_count() == 1:
            return function(*arguments, **settings)
        reply, mistake = {}, None
        if is_first():
            try:
                reply["value"] = function(*arguments, **settings)
            except ValueError as error:
                reply["mistake"], mistake = str(error), error
        reply = json.loads(_of_first(json.dumps(reply).encode()))
        if "mistake" in reply:
            raise mistake or ValueError(reply["mistake"])
        return reply["value"]

    return call


def _of_first(text):
    """The bytes that process 0 gives."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << max(8, size.bit_length()), np.uint8)  # few shapes, few programs
    if is_first():
        padded[:size] = np.frombuffer(text, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:size].tobytes()


def check_same(tree, name):
    """Raises ValueError on all processes where they do not have the same bytes; without this they
    would wait for each other."""
    if jax.process_count() == 1:
        return
    leaves = (
        x if isinstance(x, bytes) else np.ascontiguousarray(x).view(np.uint8)
        for x in jax.tree.leaves(tree)
    )
    found = multihost_utils.process_allgather(
        np.uint32(functools.reduce(lambda crc, x: zlib.crc32(x, crc), leaves, 0))
    )
    others = np.flatnonzero(found != found[0]).tolist()
    if others:
        raise ValueError(
            f"the processes {others} have other {name} than process 0; all need the same command and files"
        )


def stopping(flag):
    """Whether to stop now: on all processes at the same call, a second or so after a signal came to
    any of them.

    To be called once a step. jax's preemption service tells the others and chooses the call, so
    nothing waits for a device.

    Args:
      flag: signals.Stop of this process; alone it is the answer.
    """
    return (
        bool(flag)
        if jax.process_count() == 1
        else multihost_utils.reached_preemption_sync_point(next(_looks))
    )


def data_mesh(devices=None):
    """A mesh of all devices (of all hosts), or of those given, with the one axis `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh):
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(place, n):
    """i64[M]: which of the n rows that `place` lays out over the devices come to those of this
    process."""
    if jax.process_count() == 1:
        return np.arange(n)
    parts = place(np.zeros(n, np.int32)).sharding.addressable_devices_indices_map((n,)).values()
    return np.unique(np.concatenate([np.arange(n)[part] for part in parts]))


def by_size(tree, mesh, least):
    """A tree of shardings: arrays of at least that many elements are split, along the largest axis
    that divides, over `data`.

    Args:
      tree: of arrays or of their shapes: parameters, and what an optimizer keeps beside each of
        them.
      mesh: of `data_mesh`.
      least: elements; 0 replicates all, as what is smaller or has no such axis is.
    """

    def one(leaf):
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not least or math.prod(leaf.shape) < least or not axes:
            return replicated(mesh)
        return NamedSharding(
            mesh, PartitionSpec(*[None] * max(axes, key=lambda axis: leaf.shape[axis]), "data")
        )

    return jax.tree.map(one, tree)


def put(tree, sharding):
    """Host arrays onto the devices; each process passes the whole array and gives its devices their
    part.

    Args:
      tree: of arrays.
      sharding: one for all, or a tree of them.
    """

    def one(array, sharding):
        # A copy through numpy: donating an array that merely aliases its argument would delete the
        # argument.
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    if isinstance(sharding, jax.sharding.Sharding):
        return jax.tree.map(lambda array: one(array, sharding), tree)
    return jax.tree.map(one, tree, sharding)


def check_divides(batch, mesh, name):
    """Raises ValueError where a global batch does not divide by the devices."""
    if batch % mesh.size:
        near = max(mesh.size, round(batch / mesh.size) * mesh.size)
        raise ValueError(
            f"{name} is {batch}, which does not divide by {mesh.size} devices; try {near}"
        )
