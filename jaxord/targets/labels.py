"""Labels: everything that a label is turned into, for the batch and for the constants of a run.

Models are trained on label / data.target_scale, so all that they see is on that scale: `target`,
`rank_values`, `reference_values` and the mixture. Settings (ranks, groups, low and high of bins)
are in units of the label itself.

Shapes: N labels, K ranks, G groups, R reference points, M components of the mixture.
"""

import dataclasses

import numpy as np

# Of a bin: float32 labels such as 2.3 lie a rounding below the edge of the bin that they open
ON_EDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class Labels:
    """What becomes of the labels of one task.

    Attributes:
      makers: name of a batch array -> function of labels f64[N] (or f64[N, 2]) that gives it.
      constants: name -> array of the run.
    """

    makers: dict
    constants: dict

    def columns(self, targets):
        """Batch arrays of these labels.

        Args:
          targets: [N], or [N, 2] for two angles, on the label's scale.

        Returns:
          dict of [N]: target f32 (f32[N, 2] for two angles), rank i32, and where configured group
            i32, reference i32 or
          f32, weight f32.
        """
        targets = np.asarray(targets, np.float64)
        return {name: make(targets) for name, make in self.makers.items()}


def build(config, train_targets, ranks):
    """Labels as the config wants them, fitted to those of the training split.

    Args:
      config: a whole config; read are groups, references, weights, mixture, seed and
        data.target_scale.
      train_targets: [N], or [N, 2] for two angles, which have no ranks and nothing that ranks them.
      ranks: from jaxord.targets.ranks; None with two angles.

    Returns:
      Labels. Constants: rank_values f32[K], and where configured group_prior f32[G],
        reference_values f32[R],
      mixture_weights, mixture_means, mixture_variances f32[M].

    Raises:
      ValueError: settings that do not fit the labels or each other.
    """
    targets, scale = np.asarray(train_targets, np.float64), config.data.target_scale
    if not scale > 0:
        raise ValueError(f"data.target_scale is {scale}; expected a number above 0")
    makers, constants = {"target": lambda y: (y / scale).astype(np.float32)}, {}
    wanted = {
        "groups": config.groups.count,
        "references": config.references.index,
        "weights": config.weights.scheme,
        "mixture": config.mixture,
    }
    if targets.ndim > 1:
        given = [name for name, setting in wanted.items() if setting]
        if given:
            raise ValueError(
                f"the labels have shape {list(targets.shape)}, and {given} need one number a label; unset them"
            )
        return Labels(makers, constants)
    makers["rank"] = ranks.index
    constants["rank_values"] = (ranks.values / scale).astype(np.float32)
    if config.groups.count:
        makers["group"], constants["group_prior"] = groups(config.groups, targets)
    if config.references.index:
        makers["reference"], values = references(config.references, targets)
        constants["reference_values"] = (values / scale).astype(np.float32)
    if config.weights.scheme:
        makers["weight"] = weights(config.weights, targets, makers.get("group"))
    if config.mixture:
        constants |= mixture(config.mixture, targets / scale, config.seed)
    return Labels(makers, constants)


def bins(low, width, count):
    """The function labels [N] -> i32[N], floor((y - low) / width), with what lies beyond in the
    first and last bin."""

    def of(targets):
        place = np.floor((np.asarray(targets, np.float64) - low) / width + ON_EDGE)
        return np.clip(place, 0, count - 1).astype(np.int32)

    return of


def groups(config, targets):
    """Groups of labels (Group-DIR, P4), each a stretch of the scale.

    mapping "range":  min(G - 1, floor((y - low) G / (high - low))), G = count; high is exclusive: the largest label + 1
      for whole numbers. With low = high the range is that of the training labels, the largest in
      the last group
    mapping "divide": floor(y / count), the text of the paper ("g = floor(y / |G|)"), in which the number of groups is
      the width of a group; G is what the training labels need

    Args:
      config: the `groups` part of a config.
      targets: f64[N], training labels.

    Returns:
      (function labels -> i32[N], group_prior f32[G], each group's share of the training labels).

    Raises:
      ValueError: an unknown mapping, or a range that is empty.
    """
    count, low, high = config.count, config.low, config.high
    if config.mapping == "range":
        if low == high:
            low, high = targets.min(), targets.max()
        if not low < high:
            raise ValueError(
                f"groups lie between {low:g} and {high:g}; expected groups.low < groups.high"
            )
        of = bins(low, (high - low) / count, count)
    elif config.mapping == "divide":
        count = int(bins(0.0, config.count, 2**31)(targets).max()) + 1
        of = bins(0.0, config.count, count)
    else:
        raise ValueError(f"groups.mapping is {config.mapping!r}; it takes 'range' or 'divide'")
    return of, (np.bincount(of(targets), minlength=count) / len(targets)).astype(np.float32)


def references(config, targets):
    """Reference points of ConOrd's centre loss: which one a label has, and the label that each
    stands for.

    index "unique":      one for each distinct training label; another label takes the nearest
    index "round":       one for each distinct value of the labels rescaled to 0-100 over the training range and rounded
    index "interpolate": `count` pivots evenly over the training range; the index has a fraction
    between two of them

    Args:
      config: the `references` part of a config.
      targets: f64[N], training labels.

    Returns:
      (function labels -> i32[N] or, interpolated, f32[N]; f64[R] values).

    Raises:
      ValueError: an unknown index; a range that is empty; fewer than two pivots.
    """
    low, high = targets.min(), targets.max()
    if config.index == "unique":
        values = np.unique(targets)
        return lambda y: nearest(values, y), values
    if config.index not in ("round", "interpolate"):
        raise ValueError(
            f"references.index is {config.index!r}; it takes 'unique', 'round', 'interpolate', or '' for none"
        )
    if low == high:
        raise ValueError(
            f"references.index {config.index!r} needs two different training labels, and all are {low:g}"
        )
    if config.index == "round":
        percent = np.unique(np.rint(100 * (targets - low) / (high - low)))
        return lambda y: nearest(
            percent, np.rint(100 * (y - low) / (high - low))
        ), low + percent / 100 * (high - low)
    last = config.count - 1
    if last < 1:
        raise ValueError(f"references.count is {config.count}; expected at least 2 pivots")
    return (
        lambda y: np.clip((y - low) / (high - low) * last, 0, last).astype(np.float32),
        np.linspace(low, high, config.count),
    )


def nearest(ascending, targets):
    """i32[N]: place of the nearest of the ascending values, half way between two the even one."""
    return np.rint(np.interp(targets, ascending, np.arange(len(ascending)))).astype(np.int32)


def weights(config, targets, group=None):
    """Weights of samples by the frequency of their labels, with label distribution smoothing (LDS,
    Yang et al. 2021).

    weight = 1 / v[bin], rescaled to mean 1 over the training samples; v = (c * window) with zeros
    beyond the ends, c = sqrt(count) for scheme "sqrt_inverse", clip(count, least, most) for
    "inverse"; without lds v = c

    The window is divided by its maximum, as in the program, which the rescaling undoes. Of bins of
    `width` from low to high (exclusive) the first and the last take the labels beyond; with low =
    high they span the training labels. With within_groups (Group-DIR) the counts, v and the mean
    are of each group on its own. A label without a training sample in reach of its bin has weight
    1.

    Args:
      config: the `weights` part of a config.
      targets: f64[N], training labels.
      group: function labels -> i32[N]; needed by within_groups.

    Returns:
      function labels -> f32[N].

    Raises:
      ValueError: an unknown scheme or window, an empty range, or within_groups without groups.
    """
    if config.scheme not in ("inverse", "sqrt_inverse"):
        raise ValueError(
            f"weights.scheme is {config.scheme!r}; it takes 'inverse', 'sqrt_inverse', or '' for none"
        )
    if config.within_groups and group is None:
        raise ValueError("weights.within_groups is set, but there are no groups; set groups.count")
    low, high, width = config.low, config.high, config.width
    if low == high:
        low, high = targets.min(), targets.max() + width
    if not 0 < width <= high - low:
        raise ValueError(
            f"weights has bins of width {width:g} from {low:g} to {high:g}; expected at least one"
        )
    count = round((high - low) / width)
    of_bin, of_group = bins(low, width, count), group if config.within_groups else np.zeros_like
    shape = np.ones(1)
    if config.lds:
        shape = window(config.lds, config.kernel, config.sigma)
        shape /= shape.max()

    def place(y):
        return of_group(y).astype(np.int32), of_bin(y)

    rows, columns = place(targets)
    counts = np.zeros((rows.max() + 1, count))  # one row a group
    np.add.at(counts, (rows, columns), 1)
    values = (
        np.sqrt(counts)
        if config.scheme == "sqrt_inverse"
        else np.clip(counts, config.least, config.most)
    )
    half = len(shape) // 2
    smooth = np.stack([np.convolve(row, shape)[half : half + count] for row in values])
    raw = np.divide(1.0, smooth, out=np.zeros_like(smooth), where=smooth > 0)
    mean = (counts * raw).sum(1) / np.maximum(counts.sum(1), 1)
    table = np.ones_like(raw)
    np.divide(raw, mean[:, None], out=table, where=(raw > 0) & (mean[:, None] > 0))

    def of(y):
        row, column = place(y)
        inside = row < len(table)  # a group above all of the training labels
        return np.where(inside, table[np.where(inside, row, 0), column], 1.0).astype(np.float32)

    return of


def window(kernel, size, sigma):
    """The windows of LDS and FDS, not divided by anything: LDS divides by the maximum, FDS by the
    sum.

    "gaussian": a unit impulse of length `size`, filtered by a Gaussian (cut at 4 sigma) that the
    two ends reflect, which
      lifts the tails: size 5, sigma 2 gives .858 .946 1 .946 .858 of its maximum, not .607 .882 1
        .882 .607
    "triang":   1 - |x| / (half + 1),  x = -half..half,  half = (size - 1) / 2
    "laplace":  e^(-|x| / sigma) / (2 sigma)

    Args:
      kernel: name of the window.
      size: an odd number.
      sigma: in bins; of no use to "triang".

    Returns:
      f64[size].

    Raises:
      ValueError: an even size, a sigma that is not positive, or another kernel.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(
            f"the window's size is {size}; expected an odd number, so that it has a middle"
        )
    if not sigma > 0:
        raise ValueError(f"the window's sigma is {sigma}; expected a number above 0")
    x = np.abs(np.arange(size) - size // 2)
    if kernel == "triang":
        return 1 - x / (size // 2 + 1)
    if kernel == "laplace":
        return np.exp(-x / sigma) / (2 * sigma)
    if kernel != "gaussian":
        raise ValueError(
            f"the window's kernel is {kernel!r}; it takes 'gaussian', 'triang' or 'laplace'"
        )
    radius = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    impulse = np.pad((x == 0).astype(np.float64), radius, mode="symmetric")
    return np.convolve(impulse, bell / bell.sum(), mode="valid")


def mixture(components, targets, seed):
    """A mixture of Gaussians fitted to the training labels, for `losses.balanced_mse_gai`.

    Args:
      components: M.
      targets: f64[N], on the scale of training.
      seed: of the fit's start.

    Returns:
      dict of mixture_weights, mixture_means, mixture_variances, f32[M] each.
    """
    from sklearn.mixture import GaussianMixture

    if len(targets) < components:
        raise ValueError(
            f"mixture has {components} components, but there are {len(targets)} training labels; take fewer"
        )
    fit = GaussianMixture(components, random_state=seed).fit(targets[:, None])
    found = {
        "weights": fit.weights_,
        "means": fit.means_[:, 0],
        "variances": fit.covariances_[:, 0, 0],
    }
    return {f"mixture_{name}": values.astype(np.float32) for name, values in found.items()}
