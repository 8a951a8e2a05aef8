"""The members of a population on the devices: one program for their steps, one for their outputs.

Both are the functions of a single run under `vmap`. Members are split over the devices; frozen
parameters, distinct rows of the inputs and distinct orders of the data are stored once.

M members (filled up with the last one until they divide by the devices), S steps of a call, B
batch, N records of a split, U distinct rows of inputs, G distinct orders of the data.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import optim
from jaxord.data.batches import train_rows
from jaxord.evaluate import make_evaluate, placed_references
from jaxord.runtime import devices
from jaxord.step import State, loss_weights, make_step, objective, repeated
from jaxord.trees import nested
from jaxord.workdir import run_config

MOST = 50  # S at most


class Stacked:
    """The members on the devices: [Task] that share shapes, and their [Schedule].

    `evaluate` has a function for each, as of `make_evaluate`, but of the state last shown.
    """

    def __init__(self, tasks, schedules):
        mesh = tasks[0].mesh
        # Devices take equal shares, so the last member is repeated; nobody reads the copies.
        fill = -len(tasks) % mesh.size
        self.tasks = [*tasks, *[tasks[-1]] * fill]
        self.replicated, self.by_member = devices.replicated(mesh), devices.split(mesh)
        schedules = [*schedules, *[schedules[-1]] * fill]
        self.orders, members, tables = member_arrays(self.tasks, schedules)
        self.run = run_length([int(m["order"]) for m in members]) if mesh.size == 1 else 1
        placement = self.replicated, self.by_member
        self.members, self.axes, self.run_axes = stack(members, *placement, run=self.run)
        self.members["tables"] = devices.put(tables, self.replicated)
        self.axes["tables"] = self.run_axes["tables"] = None
        self.names, self._state, self._host, self._seen = set(), None, None, {}
        self._choose = jax.jit(where, out_shardings=self.by_member)
        self._update = jax.jit(repeated(self._step), donate_argnums=0, out_shardings=self.by_member)
        self._see = jax.jit(self._outputs, static_argnums=3, out_shardings=self.by_member)
        self.evaluate = [make_evaluate(task, self._gathering(i)) for i, task in enumerate(tasks)]

    def begin(self):
        """The stacked State before the first step; `frozen` stays empty in it."""
        trained = self._stack_all([task.trained for task in self.tasks])
        stats = self._stack_all([task.stats for task in self.tasks])
        counts = np.zeros((3, len(self.tasks)), np.int32)
        step, skipped = devices.put((counts[0], counts[1:].T), self.by_member)
        state = State(step, trained, {}, stats, (), skipped)
        # Reference points are features of the initial parameters.
        self.show(state)
        places = [(self.variables(i), self._gathering(i)) for i in range(len(self.tasks))]
        points = [placed_references(t, *place) for t, place in zip(self.tasks, places, strict=True)]
        trained |= self._stack_all(points)
        init = jax.vmap(self._optimizer(self.tasks[0].config.optim.rates, None).init)
        opt_state = jax.jit(init, out_shardings=self.by_member)(trained)
        return state.replace(trained=trained, opt_state=opt_state)

    def update(self, state, first, count):
        """(State, {name: f32[M]} of the last step) after `count` steps; donates the old state."""
        steps = range(first, first + count)
        rows = np.array([[rows_at(step) for rows_at in self.orders] for step in steps])
        rows = np.pad(rows, [(0, MOST - count), (0, 0), (0, 0), (0, 0)])  # [S, G, 2, B]
        batches = {"index": rows[:, :, 0], "epoch": rows[:, :, 1], "steps": np.int32(count)}
        batches = devices.put(batches, self.replicated)
        state, values = self._update(state, batches, None, self.members)
        # Programs on several CPU devices may not overlap, as in train.updates.
        return jax.block_until_ready(state), values

    def choose(self, mask, new, old):
        """A State with the members of `new` where the mask bool[M] is true, of `old` elsewhere."""
        mask = np.pad(mask, (0, len(self.tasks) - len(mask)))
        return self._choose(devices.put(mask, self.by_member), new, old)

    def show(self, state):
        """Makes this the state that is evaluated."""
        self._state, self._seen = state, {}
        self._host = jax.device_get((state.trained, state.stats))

    def variables(self, member):
        """{"params": flat, "stats": flat} of a member, of the state last shown."""
        trained, stats = jax.tree.map(lambda array: array[member], self._host)
        return {"params": {**self.tasks[member].frozen, **trained}, "stats": stats}

    def _stack_all(self, trees):
        return stack(trees, self.by_member, self.by_member, always=True)[0]

    def _gathering(self, member):
        """`evaluate.make_gather` of a member; the first to ask computes the outputs of all."""

        def gathering(task, names):
            self.names |= names

            def gather(variables, split):
                if split not in self._seen:
                    self._seen[split] = self._all_outputs(split)
                outputs, size = self._seen[split], len(task.splits[split].records)
                return {name: x[member, :size] for name, x in outputs.items() if name in names}

            return gather

        return gathering

    def _all_outputs(self, split):
        """{name: [M, N, ...]} of the state last shown, for the members' longest split."""
        size = max(len(task.splits[split].records) for task in self.tasks)
        batch = self.tasks[0].config.data.eval_batch
        rows = np.arange(-(-size // batch) * batch, dtype=np.int32)
        rows = devices.put(np.minimum(rows, size - 1).reshape(-1, batch), self.replicated)
        outputs = jax.device_get(self._see(self._state, self.members, rows, split))
        return {name: x.reshape(len(x), -1, *x.shape[3:]) for name, x in outputs.items()}

    def _optimizer(self, rates, factor):
        task = self.tasks[0]
        return optim.make(task.config.optim, task.groups, lambda step: factor[step], rates)

    def _step(self, state, batch, _, members):
        """One step of all members; batch: index and epoch i32[G, B]."""
        task = self.tasks[0]
        config, prepare = task.config, task.prepare(train=True)
        settings = {"skips": config.train.skips, "statistics": config.train.statistics}

        def one(state, member):
            index, epoch = batch["index"][member["order"]], batch["epoch"][member["order"]]
            loss = objective(config, member["weights"])
            optimizer = self._optimizer(member["rates"], member["factor"])
            update = make_step(task.model, loss, optimizer, prepare, **settings)
            rows = inputs(member, "train", index) | {"index": index, "epoch": epoch}
            state = state.replace(frozen=member["frozen"])
            state, values = update(state, rows, member["training"], member["constants"])
            return state.replace(frozen={}), values

        def cut(array):
            return array.reshape(-1, self.run, *array.shape[1:])

        def cut_member(axis, run_axis, array):
            if axis is None:
                return array
            return cut(array) if run_axis == 0 else cut(array)[:, 0]

        # Members with the same rows gather them once: most of the work of many small heads.
        members = jax.tree.map(
            cut_member, self.axes, self.run_axes, members, is_leaf=lambda axis: axis is None
        )
        step = jax.vmap(jax.vmap(one, (0, self.run_axes)), (0, self.axes))
        result = step(jax.tree.map(cut, state), members)
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), result)

    def _outputs(self, state, members, rows, split):
        """{name: [M, n, B, ...]} of these rows i32[n, B] of each member's split."""
        model, prepare = self.tasks[0].model, self.tasks[0].prepare(train=False)

        def one(state, member):
            params = {**member["frozen"], **state.trained}
            variables = nested({"params": params, "stats": state.stats})
            constants = dict(member["constants"])
            # Rank sentences are the same for all rows, so they are embedded once.
            if "prompt_tokens" in constants and "text_embeds" not in constants:
                constants["text_embeds"] = model.apply(variables, constants, method="text")
            names = self.names - constants.keys()

            def of_rows(index):
                batch = {"index": index, "epoch": jnp.zeros_like(index)}
                batch = inputs(member, split, index) | batch
                arrays = {**constants, **prepare(batch, member["labels"][split], constants)}
                arrays |= model.apply(variables, arrays)
                return {name: array for name, array in arrays.items() if name in names}

            return jax.lax.map(of_rows, rows)

        return jax.vmap(one, (0, self.axes))(state, members)


def run_length(order):
    """How many neighbours share their batches, if that number is the same all along; else 1."""
    size = len(order) // len(set(order))
    return size if all(order[i] == order[i - i % size] for i in range(len(order))) else 1


def inputs(member, split, index):
    """The rows of a split's inputs."""
    slot = member["slot"][split][index]
    return {name: table[slot] for name, table in member["tables"].items()}


@jax.vmap
def where(chosen, new, old):
    """The tree of `new` in the chosen members, of `old` in the others."""
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), new, old)


def member_arrays(tasks, schedules):
    """(orders, members, tables): all that the programs take beside the State.

    Orders are the distinct functions step -> (index, epoch) of training batches, members a tree of
    arrays for each, tables {input: [U, ...]}.
    """
    longest = max(schedule.total for schedule in schedules)
    splits = tasks[0].splits
    sizes = {name: max(len(task.splits[name].records) for task in tasks) for name in splits}
    orders, places, table, shared, members = {}, {}, [], {}, []
    for task, schedule in zip(tasks, schedules, strict=True):
        config, train = task.config, task.splits["train"]
        # Members that differ in numbers only have one object of splits.
        if id(task.splits) not in shared:
            order = config.seed, len(train.records)
            orders.setdefault(order, train_rows(train, batch=config.data.batch, seed=config.seed))
            factor = optim.rate_factor(config.optim, schedule.total, schedule.length)
            labels = task.labels.get("annotations", task.labels["train"])
            tower = f"{task.model.tower[0]}/" if "image_features" in train.records.inputs else None
            frozen = {p: x for p, x in task.frozen.items() if not tower or not p.startswith(tower)}
            slot = {name: slots(s.records, places, table) for name, s in task.splits.items()}
            shared[id(task.splits)] = {
                "order": np.int32(list(orders).index(order)),
                "frozen": task.held(frozen),
                "constants": jax.device_get(task.constants),
                "training": padded(labels, sizes["train"]),
                "labels": {name: padded(task.labels[name], sizes[name]) for name in task.splits},
                "slot": {name: padded(places, sizes[name]) for name, places in slot.items()},
                "factor": np.asarray(jax.vmap(factor)(jnp.arange(longest + 1))),
            }
        rates = run_config.plain(config.optim.rates).items()
        rates = {group: {"weight_decay": 0.0, **rate} for group, rate in rates}
        numbers = jax.tree.map(np.float32, {"rates": rates, "weights": loss_weights(config)})
        members.append({**shared[id(task.splits)], **numbers})
    names = sorted(splits["train"].records.inputs)
    tables = map(np.stack, zip(*table, strict=True))
    return list(orders.values()), members, dict(zip(names, tables, strict=True))


def slots(records, places, table):
    """i32[N]: places of the inputs in the table of distinct rows, which new ones are added to."""
    rows = np.arange(len(records))
    arrays = [np.asarray(array[rows]) for _, array in sorted(records.inputs.items())]
    slots = []
    for row in zip(*arrays, strict=True):
        key = hashlib.sha256(b"".join(part.tobytes() for part in row)).digest()
        if key not in places:
            places[key] = len(table)
            table.append(row)
        slots.append(places[key])
    return np.array(slots, np.int32)


def padded(tree, size):
    """Arrays on the host, filled up with zeros to `size` rows."""

    def one(array):
        return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])

    return jax.tree.map(one, jax.device_get(tree))


def equal(a, b):
    """Whether two arrays are the same object or have equal elements."""
    return a is b or np.array_equal(a, b)


def stack(trees, shared, split, always=False, run=1):
    """One tree of placed arrays: a leaf that is the same in all members once, else [M, ...].

    Args:
      shared, split: shardings of the two kinds of leaf.
      always: stack equal leaves too.
      run: neighbours that may share a leaf.

    Returns:
      (arrays, axes for vmap: None or 0, axes within a run: None if all of each run are the same).
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(trees[0])
    columns = zip(*map(jax.tree.leaves, trees), strict=True)
    leaves, axes, run_axes = [], [], []
    for (path, first), column in zip(paths, columns, strict=True):
        for other in column:
            if np.shape(other) != np.shape(first):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"members of a population share shapes, but {name} is {list(np.shape(first))} "
                    f"of one and {list(np.shape(other))} of another; train them one by one"
                )

        # vmap maps no leaf that all members share, so that memory has it once.
        heads = [column[i - i % run] for i in range(len(column))]
        in_runs = not always and all(map(equal, column, heads))
        same = in_runs and all(equal(head, first) for head in heads)
        leaves.append(devices.put(first, shared) if same else devices.put(np.stack(column), split))
        axes.append(None if same else 0)
        run_axes.append(None if in_runs else 0)
    return tuple(structure.unflatten(part) for part in (leaves, axes, run_axes))
