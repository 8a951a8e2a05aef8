"""Arrays made from labels: columns of the batch, and constants of the run.

Models train on label / data.target_scale, and so are `target`, `rank_values`, `reference_values`
and the mixture. Settings (ranks, groups, low and high of bins) are in units of the label itself.
`groups`, `references` and `weights` take the part of a config that has their name and the training
labels f64[N]; settings that do not fit the labels or each other are a ValueError.

Shapes: N labels, K ranks, G groups, R reference points, M components of the mixture.
"""

import dataclasses

import numpy as np

# Of a bin: float32 labels such as 2.3 lie a rounding below the edge of the bin that they open.
ON_EDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class Labels:
    """The arrays that one task makes from labels."""

    makers: dict  # name of a batch array -> function of labels, f64[N] (f64[N, 2] for two angles)
    constants: dict  # name -> array of the run

    def columns(self, targets):
        """Batch arrays of labels [N] (or [N, 2]): `target` f32 (f32[N, 2]), `rank` i32, and where
        configured `group` i32, `reference` i32 or f32 and `weight` f32."""
        targets = np.asarray(targets, np.float64)
        return {name: make(targets) for name, make in self.makers.items()}


def build(config, train_targets, ranks):
    """Fits the Labels of a config to the training split.

    `train_targets` are [N], or [N, 2] for two angles, which have neither ranks nor groups; `config`
    is whole. The constants are rank_values f32[K], and where configured group_prior f32[G],
    reference_values f32[R], mixture_weights, mixture_means and mixture_variances f32[M].
    """
    targets, scale = np.asarray(train_targets, np.float64), config.data.target_scale
    if not scale > 0:
        raise ValueError(f"data.target_scale is {scale}; expected a number above 0")
    makers, constants = {"target": lambda y: (y / scale).astype(np.float32)}, {}
    # Two angles have no order, so nothing that needs one can be derived from them.
    if targets.ndim > 1:
        settings = {"groups": config.groups.count, "references": config.references.index}
        settings |= {"weights": config.weights.scheme, "mixture": config.mixture}
        if unfit := [name for name, setting in settings.items() if setting]:
            shape = list(targets.shape)
            raise ValueError(
                f"labels have shape {shape}; unset {unfit}, which need one number each"
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
    """Function of labels [N] -> i32[N]: floor((y - low) / width), clipped to 0..count - 1."""

    def bin_of(targets):
        index = np.floor((np.asarray(targets, np.float64) - low) / width + ON_EDGE)
        return np.clip(index, 0, count - 1).astype(np.int32)

    return bin_of


def groups(config, targets):
    """Groups of labels (Group-DIR, P4), each a stretch of the scale.

    mapping "range":  min(G - 1, floor((y - low) G / (high - low))), G = count; `high` is exclusive,
      the largest label + 1 for whole numbers; with low = high the training labels set the range.
    mapping "divide": floor(y / count), the paper's "g = floor(y / |G|)": `count` is the width of a
      group, and G is as large as the training labels need.
    Returns (function of labels -> i32[N], group_prior f32[G], shares of the training labels).
    """
    count, low, high = config.count, config.low, config.high
    if config.mapping == "range":
        if low == high:
            low, high = targets.min(), targets.max()
        if not low < high:
            raise ValueError(f"groups.low is {low:g}; expected less than groups.high, {high:g}")
        group_of = bins(low, (high - low) / count, count)
    elif config.mapping == "divide":
        count = int(bins(0.0, config.count, 2**31)(targets).max()) + 1
        group_of = bins(0.0, config.count, count)
    else:
        raise ValueError(f"groups.mapping is {config.mapping!r}; it takes 'range' or 'divide'")
    prior = np.bincount(group_of(targets), minlength=count) / len(targets)
    return group_of, prior.astype(np.float32)


def references(config, targets):
    """Reference points of ConOrd's centre loss: the point of each label, the label of each point.

    index "unique":      a point for each distinct training label; other labels take the nearest
    index "round":       the same for labels rescaled to 0-100 over the training range and rounded
    index "interpolate": `count` pivots evenly over the training range; the index has a fraction
    Returns (function of labels -> i32[N] or, interpolated, f32[N]; f64[R] labels of the points).
    """
    low, high, index = targets.min(), targets.max(), config.index

    def percent(y):
        return np.rint(100 * (y - low) / (high - low))

    def position(y):
        last = config.count - 1
        return np.clip((y - low) / (high - low) * last, 0, last).astype(np.float32)

    if index not in ("unique", "round", "interpolate"):
        choices = "'unique', 'round', 'interpolate', or '' for none"
        raise ValueError(f"references.index is {index!r}; it takes {choices}")
    if index == "unique":
        values = np.unique(targets)
        return lambda y: nearest(values, y), values
    # Both other indices rescale by the range of the labels.
    if low == high:
        raise ValueError(f"references.index {index!r}: all training labels are {low:g}; need two")
    if index == "round":
        percents = np.unique(percent(targets))
        return lambda y: nearest(percents, percent(y)), low + percents / 100 * (high - low)
    if config.count < 2:
        raise ValueError(f"references.count is {config.count}; expected at least 2 pivots")
    return position, np.linspace(low, high, config.count)


def nearest(ascending, targets):
    """i32[N]: index of the nearest of the ascending values, half way between two the even one."""
    return np.rint(np.interp(targets, ascending, np.arange(len(ascending)))).astype(np.int32)


def weights(config, targets, group_of=None):
    """Function of labels -> f32[N]: weights by label frequency, with LDS (Yang et al. 2021).

    weight = 1 / v[bin], rescaled to mean 1 over the training samples; v = (c * window) with zeros
    beyond the ends, c = sqrt(count) for scheme "sqrt_inverse", clip(count, least, most) for
    "inverse"; without lds v = c. A label without a training sample in reach has weight 1.

    Bins of `width` reach from low to high (exclusive), the outer ones take the labels beyond; with
    low = high they span the training labels. `within_groups` (Group-DIR) counts, smooths and
    rescales each group of `group_of`, labels -> i32[N], on its own.
    """
    if config.scheme not in ("inverse", "sqrt_inverse"):
        choices = "'inverse', 'sqrt_inverse', or '' for none"
        raise ValueError(f"weights.scheme is {config.scheme!r}; it takes {choices}")
    if config.within_groups and group_of is None:
        raise ValueError("weights.within_groups is set, but there are no groups; set groups.count")
    low, high, width = config.low, config.high, config.width
    if low == high:
        low, high = targets.min(), targets.max() + width
    if not 0 < width <= high - low:
        raise ValueError(f"weights.width is {width:g}; expected a bin within {low:g} to {high:g}")
    count = round((high - low) / width)
    bin_of = bins(low, width, count)

    def row_and_column(y):
        group = group_of(y) if config.within_groups else np.zeros_like(y)
        return group.astype(np.int32), bin_of(y)

    # One row a group, one column a bin.
    rows, columns = row_and_column(targets)
    counts = np.zeros((rows.max() + 1, count))
    np.add.at(counts, (rows, columns), 1)
    table = _weight_table(config, counts)

    def weight_of(y):
        row, column = row_and_column(y)
        known = row < len(table)  # groups above all training labels have no row
        return np.where(known, table[np.where(known, row, 0), column], 1.0).astype(np.float32)

    return weight_of


def _weight_table(config, counts):
    """Weights f64[G, bins] from the counts of training samples f64[G, bins]."""
    roots = config.scheme == "sqrt_inverse"
    values = np.sqrt(counts) if roots else np.clip(counts, config.least, config.most)
    # The authors' program divides the window by its maximum; rescaling to mean 1 cancels that.
    shape = window(config.lds, config.kernel, config.sigma) if config.lds else np.ones(1)
    shape /= shape.max()
    half, count = len(shape) // 2, counts.shape[1]
    smooth = np.stack([np.convolve(row, shape)[half : half + count] for row in values])
    raw = np.divide(1.0, smooth, out=np.zeros_like(smooth), where=smooth > 0)
    mean = ((counts * raw).sum(1) / np.maximum(counts.sum(1), 1))[:, None]
    return np.divide(raw, mean, out=np.ones_like(raw), where=(raw > 0) & (mean > 0))


def window(kernel, size, sigma):
    """The windows of LDS and FDS, unscaled: LDS divides by the maximum, FDS by the sum.

    "gaussian": a unit impulse of length `size` under a Gaussian filter (cut at 4 sigma) that
      reflects at both ends, which lifts the tails: size 5, sigma 2 gives .858 .946 1 .946 .858 of
      the maximum, not .607 .882 1 .882 .607
    "triang":   1 - |x| / (half + 1),  x = -half..half,  half = (size - 1) / 2
    "laplace":  e^(-|x| / sigma) / (2 sigma)

    `size` is odd, `sigma` in bins (and unused by "triang"). Returns f64[size].
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the window's size is {size}; expected an odd number, for a middle")
    if not sigma > 0:
        raise ValueError(f"the window's sigma is {sigma}; expected a number above 0")
    x = np.abs(np.arange(size) - size // 2)
    if kernel == "triang":
        return 1 - x / (size // 2 + 1)
    if kernel == "laplace":
        return np.exp(-x / sigma) / (2 * sigma)
    if kernel != "gaussian":
        raise ValueError(f"the window is {kernel!r}; it takes 'gaussian', 'triang' or 'laplace'")
    radius = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    impulse = np.pad((x == 0).astype(np.float64), radius, mode="symmetric")
    return np.convolve(impulse, bell / bell.sum(), mode="valid")


def mixture(components, targets, seed):
    """Fits M Gaussians to labels on the scale of training, for `losses.balanced_mse_gai`."""
    from sklearn.mixture import GaussianMixture

    if len(targets) < components:
        raise ValueError(f"mixture is {components}; expected at most {len(targets)}, one a label")
    fit = GaussianMixture(components, random_state=seed).fit(targets[:, None])
    return {
        "mixture_weights": fit.weights_.astype(np.float32),
        "mixture_means": fit.means_[:, 0].astype(np.float32),
        "mixture_variances": fit.covariances_[:, 0, 0].astype(np.float32),
    }
