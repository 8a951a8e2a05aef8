"""One mesh axis, `data`: the batch is split over it, everything else is replicated."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


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


def put(tree, sharding):
    """Host arrays onto the devices; each host passes the whole array and gives its devices their part."""

    def one(array):
        # A copy through numpy: donating an array that merely aliases its argument would delete the argument.
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(one, tree)


def check_divides(batch, mesh, name):
    """Raises ValueError where a global batch does not divide by the devices."""
    if batch % mesh.size:
        near = max(mesh.size, round(batch / mesh.size) * mesh.size)
        raise ValueError(f"{name} is {batch}, which does not divide by {mesh.size} devices; try {near}")
