"""The members of a population on the devices: one program takes the steps of all, another gives all
their outputs.

Both are the functions of a single run under `vmap`. What members have in common is there once:
frozen parameters, each distinct row of the inputs, each order of the data. The members themselves
are split over the devices.

M members (filled up by the last one until they divide by the devices), S steps of a call, B batch,
N records of a split, U distinct rows of inputs, G distinct orders of the data.
"""

import collections
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import optim
from jaxord.data.batches import train_rows
from jaxord.evaluate import make_evaluate, placed_references
from jaxord.runtime import devices
from jaxord.step import State, in_a_row, loss_weights, make_step, objective
from jaxord.trees import nested
from jaxord.workdir import run_config

MOST = 50  # S at most


class Stacked:
    """The members on the devices.

    Args:
      tasks: [Task] that share shapes.
      tracks: [Track] of them.

    Attributes:
      evaluate: of each member, as of `evaluate.make_evaluate`, but always of the state that was
        last shown.
    """

    def __init__(self, tasks, tracks):
        fill = -len(tasks) % tasks[0].mesh.size
        self.tasks, tracks = [*tasks, *[tasks[-1]] * fill], [*tracks, *[tracks[-1]] * fill]
        self.replicated, self.by_member = (
            devices.replicated(tasks[0].mesh),
            devices.split(tasks[0].mesh),
        )
        self.orders, given, tables = arrays_of(self.tasks, tracks)
        self.run = run_of([int(own["order"]) for own in given]) if tasks[0].mesh.size == 1 else 1
        self.given, self.axes, self.within = stacked(
            given, self.replicated, self.by_member, run=self.run
        )
        self.given["tables"] = devices.put(tables, self.replicated)
        self.axes["tables"] = self.within["tables"] = None
        self.names, self._state, self._host, self._seen = set(), None, None, {}
        self._choose = jax.jit(choose, out_shardings=self.by_member)
        self._update = jax.jit(in_a_row(self._step), donate_argnums=0, out_shardings=self.by_member)
        self._see = jax.jit(self._outputs, static_argnums=3, out_shardings=self.by_member)
        self.evaluate = [
            make_evaluate(task, self._gathering(place)) for place, task in enumerate(tasks)
        ]

    def begin(self):
        """The stacked State before the first step; `frozen` stays empty in it."""
        trained, stats = (
            stacked(
                [part(task) for task in self.tasks], self.by_member, self.by_member, always=True
            )[0]
            for part in (lambda task: task.trained, lambda task: task.stats)
        )
        step, skipped = (np.zeros((len(self.tasks), *shape), np.int32) for shape in ((), (2,)))
        step, skipped = devices.put((step, skipped), self.by_member)
        state = State(step, trained, {}, stats, (), skipped)
        self.show(state)
        places = range(len(self.tasks))
        points = [
            placed_references(self.tasks[at], self.variables(at), self._gathering(at))
            for at in places
        ]
        trained |= stacked(points, self.by_member, self.by_member, always=True)[0]
        init = self._optimizer(self.tasks[0].config.optim.rates, None).init
        return state.replace(
            trained=trained,
            opt_state=jax.jit(jax.vmap(init), out_shardings=self.by_member)(trained),
        )

    def update(self, state, first, count):
        """(State, {name: f32[M]} of the last step) after `count` steps; the old state is
        donated."""
        rows = [
            np.array([rows_at(step) for rows_at in self.orders])
            for step in range(first, first + count)
        ]  # [G, 2, B]
        rows = np.pad(np.array(rows), [(0, MOST - count), (0, 0), (0, 0), (0, 0)])
        batches = {"index": rows[:, :, 0], "epoch": rows[:, :, 1], "steps": np.int32(count)}
        state, values = self._update(state, devices.put(batches, self.replicated), None, self.given)
        return jax.block_until_ready(
            state
        ), values  # programs on several CPU devices may not overlap, as in train.fit

    def choose(self, mask, new, old):
        """A State with the members of `new` where the mask bool[M] is true, of `old` elsewhere."""
        mask = np.pad(mask, (0, len(self.tasks) - len(mask)))
        return self._choose(devices.put(mask, self.by_member), new, old)

    def show(self, state):
        """Makes this the state that is evaluated."""
        self._state, self._seen, self._host = (
            state,
            {},
            jax.device_get((state.trained, state.stats)),
        )

    def variables(self, place):
        """{"params": flat, "stats": flat} of a member, of the state that was last shown."""
        trained, stats = jax.tree.map(lambda array: array[place], self._host)
        return {"params": {**self.tasks[place].frozen, **trained}, "stats": stats}

    def _gathering(self, place):
        """What stands for evaluate.make_gather of a member: all members' outputs are computed when
        the first one asks."""

        def gathering(task, names):
            self.names |= names

            def gather(variables, split):
                if split not in self._seen:
                    size, batch = (
                        max(len(task.splits[split].records) for task in self.tasks),
                        task.config.data.eval_batch,
                    )
                    rows = np.minimum(
                        np.arange(-(-size // batch) * batch, dtype=np.int32), size - 1
                    ).reshape(-1, batch)
                    found = self._see(
                        self._state, self.given, devices.put(rows, self.replicated), split
                    )
                    self._seen[split] = {
                        name: array.reshape(len(array), -1, *array.shape[3:])
                        for name, array in jax.device_get(found).items()
                    }
                size = len(task.splits[split].records)
                return {
                    name: array[place, :size]
                    for name, array in self._seen[split].items()
                    if name in names
                }

            return gather

        return gathering

    def _optimizer(self, rates, factor):
        task = self.tasks[0]
        return optim.make(task.config.optim, task.groups, lambda step: factor[step], rates)

    def _step(self, state, batch, _, given):
        """One step of all members; batch: index and epoch i32[G, B]."""
        task = self.tasks[0]
        prepare = task.prepare(train=True)

        def one(state, given):
            index, epoch = batch["index"][given["order"]], batch["epoch"][given["order"]]
            update = make_step(
                task.model,
                objective(task.config, given["weights"]),
                self._optimizer(given["rates"], given["factor"]),
                prepare,
                skips=task.config.train.skips,
                statistics=task.config.train.statistics,
            )
            rows = inputs(given, "train", index) | {"index": index, "epoch": epoch}
            state, values = update(
                state.replace(frozen=given["frozen"]), rows, given["training"], given["constants"]
            )
            return state.replace(frozen={}), values

        def cut(array):
            return array.reshape(-1, self.run, *array.shape[1:])

        def first(axis, within, array):
            return array if axis is None else cut(array)[:, 0] if within is None else cut(array)

        # Members that see the same rows gather them once: among many heads that is most of the
        # work.
        given = jax.tree.map(
            first, self.axes, self.within, given, is_leaf=lambda axis: axis is None
        )
        runs = jax.vmap(jax.vmap(one, (0, self.within)), (0, self.axes))(
            jax.tree.map(cut, state), given
        )
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), runs)

    def _outputs(self, state, given, rows, split):
        """{name: [M, n, B, ...]} of these rows i32[n, B] of each member's split."""
        model, prepare = self.tasks[0].model, self.tasks[0].prepare(train=False)

        def one(state, given):
            variables = nested(
                {"params": {**given["frozen"], **state.trained}, "stats": state.stats}
            )
            constants = dict(given["constants"])
            if "prompt_tokens" in constants and "text_embeds" not in constants:
                constants["text_embeds"] = model.apply(variables, constants, method="text")

            def of(index):
                batch = inputs(given, split, index) | {
                    "index": index,
                    "epoch": jnp.zeros_like(index),
                }
                arrays = {**constants, **prepare(batch, given["labels"][split], constants)}
                arrays |= model.apply(variables, arrays)
                return {
                    name: array
                    for name, array in arrays.items()
                    if name in self.names and name not in constants
                }

            return jax.lax.map(of, rows)

        return jax.vmap(one, (0, self.axes))(state, given)


def run_of(order):
    """How many members in a row see the same batches, where that is the same number all along the
    list of orders; else 1."""
    size = len(order) // len(set(order))
    return size if all(order[i] == order[i - i % size] for i in range(len(order))) else 1


def inputs(given, split, index):
    """The rows of a split's inputs."""
    slot = given["slot"][split][index]
    return {name: table[slot] for name, table in given["tables"].items()}


def choose(mask, new, old):
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )


def arrays_of(tasks, tracks):
    """What the program takes of the members beside their State.

    Returns:
      (orders, given, tables): the distinct functions step -> (index, epoch) of training batches; of
      each member a tree of its arrays, of like shapes; {input: [U, ...]}, the distinct rows of all
      inputs.
    """
    longest, widest = max(track.total for track in tracks), collections.Counter()
    for task in tasks:
        widest |= collections.Counter(
            {name: len(split.records) for name, split in task.splits.items()}
        )
    orders, places, table, shared, given = {}, {}, [], {}, []
    for task, track in zip(tasks, tracks, strict=True):
        config, train = task.config, task.splits["train"]
        if id(task.splits) not in shared:
            order = config.seed, len(train.records)
            orders.setdefault(order, train_rows(train, batch=config.data.batch, seed=config.seed))
            factor = optim.schedule(config.optim, track.total, track.length)
            here = task.labels.get("annotations", task.labels["train"])
            used = [
                path
                for path in task.frozen
                if "image_features" not in train.records.inputs
                or not path.startswith(f"{task.model.tower[0]}/")
            ]
            shared[id(task.splits)] = {
                "order": np.int32(list(orders).index(order)),
                "frozen": task.held({path: task.frozen[path] for path in used}),
                "constants": jax.device_get(task.constants),
                "training": padded(here, widest["train"]),
                "labels": {name: padded(task.labels[name], widest[name]) for name in task.splits},
                "slot": {
                    name: padded(slots(task.splits[name].records, places, table), widest[name])
                    for name in task.splits
                },
                "factor": np.asarray(jax.vmap(factor)(jnp.arange(longest + 1))),
            }
        rates = {
            group: {"weight_decay": 0.0, **run_config.plain(rate)}
            for group, rate in config.optim.rates.items()
        }
        numbers = jax.tree.map(np.float32, {"rates": rates, "weights": loss_weights(config)})
        given.append({**shared[id(task.splits)], **numbers})
    names, columns = sorted(tasks[0].splits["train"].records.inputs), zip(*table, strict=True)
    return (
        list(orders.values()),
        given,
        {name: np.stack(rows) for name, rows in zip(names, columns, strict=True)},
    )


def slots(records, places, table):
    """i32[N]: places of the records' inputs in the table of distinct rows, to which new ones are
    added."""
    arrays = [
        np.asarray(array[np.arange(len(records))]) for _, array in sorted(records.inputs.items())
    ]
    found = []
    for row in zip(*arrays, strict=True):
        key = hashlib.sha256(b"".join(part.tobytes() for part in row)).digest()
        if key not in places:
            places[key] = len(table)
            table.append(row)
        found.append(places[key])
    return np.array(found, np.int32)


def padded(tree, size):
    """Arrays on the host, filled up with zeros to that many rows."""

    def one(array):
        return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])

    return jax.tree.map(one, jax.device_get(tree))


def stacked(trees, shared, split, always=False, run=1):
    """One tree of placed arrays: one leaf where all are the same, else [M, ...].

    Args:
      trees: [tree] of the members.
      shared, split: shardings of the two.
      always: stack what is the same too.
      run: members in a row that may be the same among each other.

    Returns:
      (arrays, axes for vmap: None or 0, axes within a run: None where all of a run are the same).

    Raises:
      ValueError: shapes that differ.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(trees[0])
    leaves, axes, within = [], [], []
    for (path, first), *others in zip(paths, *map(jax.tree.leaves, trees[1:]), strict=True):
        for other in others:
            if np.shape(other) != np.shape(first):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"members of a population share shapes, but {name} is {list(np.shape(first))} of one and "
                    f"{list(np.shape(other))} of another; train them one by one"
                )
        each = [first, *others]
        same = not always and all(
            other is first or np.array_equal(other, first) for other in others
        )
        alike = not always and all(
            np.array_equal(leaf, each[i - i % run]) for i, leaf in enumerate(each) if i % run
        )
        leaves.append(devices.put(first, shared) if same else devices.put(np.stack(each), split))
        axes.append(None if same else 0)
        within.append(None if same or alike else 0)
    return tuple(structure.unflatten(part) for part in (leaves, axes, within))
