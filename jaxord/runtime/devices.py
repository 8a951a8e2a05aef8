"""Arrays on a mesh with one axis, `data`: splits the batch, replicates all but large parameters."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def data_mesh(devices=None):
    """A mesh of the devices (default: all, of all hosts) with the one axis `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
    """The sharding under which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh):
    """The sharding that splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(place, n):
    """i64[M]: the rows, out of n that `place` lays out, that this process's devices hold."""
    if jax.process_count() == 1:
        return np.arange(n)
    parts = place(np.zeros(n, np.int32)).sharding.addressable_devices_indices_map((n,)).values()
    return np.unique(np.concatenate([np.arange(n)[part] for part in parts]))


def by_size(tree, mesh, least):
    """A tree of shardings, of arrays or their shapes: large ones are split, the rest replicated.

    An array of `least` elements or more is split along its largest axis that the devices divide; 0
    splits none.
    """

    def sharding_of(leaf):
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not least or math.prod(leaf.shape) < least or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "data"))

    return jax.tree.map(sharding_of, tree)


def put(tree, sharding):
    """Places host arrays, whole on every process, under one sharding or a tree of them."""

    def place(array, sharding):
        # The numpy copy keeps the caller's array alive when the result, an alias of it, is donated.
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    if isinstance(sharding, jax.sharding.Sharding):
        return jax.tree.map(lambda array: place(array, sharding), tree)
    return jax.tree.map(place, tree, sharding)


def check_divides(batch, mesh, name):
    """Raises ValueError if a global batch does not divide by the devices."""
    if batch % mesh.size:
        near = max(mesh.size, round(batch / mesh.size) * mesh.size)
        devices = f"{mesh.size} devices; try {near}"
        raise ValueError(f"{name} is {batch}, which does not divide by {devices}")
