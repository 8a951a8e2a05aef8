"""Embeddings: their similarities, their map in the plane, and images as examples.

M rows of a matrix, N samples, D embedding, H W image.
"""

import numpy as np

from jaxord.report.figures import style

LARGE = 2000  # samples from which on a map is made by interpolation


def unit(rows):
    """[M, D] -> f64[M, D], rows of length one; a row of zeros stays one."""
    rows = np.asarray(rows, float)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def short(values):
    """Numbers as short texts."""
    return [f"{value:.3g}" for value in values]


def in_order(embeds, target, most=500):
    """Similarity of features sorted by label: minus the distance of unit features (ConOrd Fig. 4).

    Args:
      embeds: [N, D].
      target: [N].
      most: rows of the result; of more samples as many, evenly spaced along the order.

    Returns:
      (f64[M, M] in -2..0, labels [M], ascending).
    """
    order = np.argsort(target, kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    rows = unit(np.asarray(embeds)[order])
    return -np.sqrt(np.maximum(2 - 2 * rows @ rows.T, 0)), np.asarray(target)[order]


def plane(embeds, seed=0):
    """[N, D] -> f32[N, 2] by t-SNE (van der Maaten and Hinton 2008) of unit features.

    Perplexity 30, less below 100 samples; starts from the first two principal components. Only
    neighbourhood means something, not distances between clusters or their sizes. More than LARGE
    samples are placed by interpolation (Linderman et al. 2019), in time proportional to N.
    """
    rows, shared = unit(embeds), {"random_state": seed}
    if len(rows) > LARGE:
        from openTSNE import TSNE

        shared |= {"negative_gradient_method": "fft", "initialization": "pca"}
        return np.asarray(TSNE(perplexity=30, **shared).fit(rows), np.float32)
    from sklearn.manifold import TSNE

    # For few points the approximation takes longer.
    shared |= {"method": "exact" if len(rows) <= 200 else "barnes_hut", "init": "pca"}
    return TSNE(perplexity=min(30.0, (len(rows) - 1) / 3.3), **shared).fit_transform(rows)


@style.drawn
def matrices(panels, bar, of):
    """Square matrices {title: (matrix [M, M], names [M])} of rows `of`; `bar` names the colours."""
    width, height, ticks = (5.2, 4.4, 10) if len(panels) == 1 else (4.4, 3.7, 7)
    figure, axes = style.canvas(len(panels), width=width, height=height)
    for ax, (title, (matrix, names)) in zip(axes, panels.items(), strict=True):
        # The diagonal of a large matrix would take half of the scale.
        low, high = np.quantile(matrix, (0.01, 0.99))
        image = ax.imshow(matrix, vmin=low, vmax=high, interpolation="nearest")
        figure.colorbar(image, ax=ax, label=bar, shrink=0.85)
        style.name_ticks(ax.xaxis, names, most=ticks)
        style.name_ticks(ax.yaxis, names, most=ticks)
        ax.grid(False)
        ax.set(title=title, xlabel=of, ylabel=of)
    return figure


@style.drawn
def points(panels, bar):
    """Points {title: (places [N, 2], target [N])} under one scale of colours, named `bar`."""
    width, height = (5.6, 4.4) if len(panels) == 1 else (3.4, 3.3)
    figure, axes = style.canvas(len(panels), width=width, height=height)
    distinct = np.unique(np.concatenate([target for _, target in panels.values()]))
    scale = {"vmin": distinct[0], "vmax": distinct[-1], "linewidths": 0, "alpha": 0.85}
    for ax, (title, (places, target)) in zip(axes, panels.items(), strict=True):
        is_large = len(target) > 500
        look = scale | {"s": 12 if is_large else 20, "rasterized": is_large}
        dots = ax.scatter(*np.asarray(places).T, c=target, **look)
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.set_aspect("equal", "datalim")
    ticks = distinct if len(distinct) <= 12 else None
    figure.colorbar(dots, ax=axes, label=bar, shrink=0.8, ticks=ticks)
    return figure


@style.drawn
def examples(rows, side=1.15):
    """Images in rows with captions; a map [H, W] in 0..1 lies over its image, which turns grey.

    Args:
      rows: [(title or "", [(image u8[H, W, 3], caption) or (image, caption, map)])].
      side: of an image, inches.
    """
    from matplotlib.figure import Figure

    gap, line = 0.06, 0.24  # inches, between images and of a line of text
    heights = [side + line + (line if title else 0) for title, _ in rows]
    width, height = (side + gap) * max(len(items) for _, items in rows), sum(heights)
    figure, top = Figure(figsize=(width, height)), height
    for (title, items), used in zip(rows, heights, strict=True):
        figure.text(0, (top - 0.75 * line) / height, title, fontsize=10)
        bottom = top - used + line
        for k, item in enumerate(items):
            image, caption, heat = (*item, None)[:3]
            left = k * (side + gap)
            box = (left / width, bottom / height, side / width, side / height)
            ax = figure.add_axes(box)
            ax.set_axis_off()
            if heat is None:
                ax.imshow(image)
            else:
                # Darker than it is, so that the colours of the map stand out.
                ax.imshow(image.mean(2), cmap="gray", vmin=0, vmax=420)
                ax.imshow(heat, vmin=0, vmax=1, alpha=0.15 + 0.75 * heat)
            place = (left + side / 2) / width, (bottom - 0.68 * line) / height
            figure.text(*place, caption, ha="center", fontsize=9)
        top -= used
    return figure
