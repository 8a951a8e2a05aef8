"""Embeddings: their similarities, their map in the plane, and images as examples.

M rows of a matrix, N samples, D embedding, H W image.
"""

import numpy as np

from jaxord.report.figures import style

LARGE = 2000  # samples


def unit(rows):
    """[M, D] -> f64[M, D], rows of length one; a row of zeros stays one."""
    rows = np.asarray(rows, float)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def in_order(embeds, target, most=500):
    """Similarity of features in the order of their labels: the negative distance of unit features
    (ConOrd Figure 4).

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

    Perplexity 30, less for fewer than 100 samples; started from the two first principal components.
    Only who is near whom means something: distances between clusters and their sizes do not. More
    than LARGE samples are placed by interpolation (Linderman et al. 2019), whose time grows as N.
    """
    rows = unit(embeds)
    if len(rows) > LARGE:
        from openTSNE import TSNE

        made = TSNE(
            perplexity=30, initialization="pca", negative_gradient_method="fft", random_state=seed
        ).fit(rows)
        return np.asarray(made, np.float32)
    from sklearn.manifold import TSNE

    method = (
        "exact" if len(rows) <= 200 else "barnes_hut"
    )  # for few points the approximation takes longer
    return TSNE(
        perplexity=min(30.0, (len(rows) - 1) / 3.3), init="pca", method=method, random_state=seed
    ).fit_transform(rows)


@style.drawn
def matrices(panels, bar, of):
    """Square matrices side by side, each with its own scale, from its first to its 99th percentile.

    Args:
      panels: {title: (matrix [M, M], names [M])}.
      bar: what the colours mean.
      of: what the rows and columns are.
    """
    figure, axes = style.canvas(
        len(panels), width=4.4 if len(panels) > 1 else 5.2, height=3.7 if len(panels) > 1 else 4.4
    )
    for ax, (title, (matrix, names)) in zip(axes, panels.items(), strict=True):
        low, high = np.quantile(
            matrix, (0.01, 0.99)
        )  # the diagonal of a large matrix would take half of the scale
        image = ax.imshow(matrix, vmin=low, vmax=high, interpolation="nearest")
        figure.colorbar(image, ax=ax, label=bar, shrink=0.85)
        for axis in (ax.xaxis, ax.yaxis):
            style.name_ticks(axis, names, most=10 if len(panels) == 1 else 7)
        ax.grid(False)
        ax.set(title=title, xlabel=of, ylabel=of)
    return figure


@style.drawn
def points(panels, bar):
    """Points in the plane, coloured by the label, side by side under one scale of colours.

    Args:
      panels: {title: (places [N, 2], target [N])}.
      bar: what the colours mean.
    """
    one = len(panels) == 1
    figure, axes = style.canvas(len(panels), width=5.6 if one else 3.4, height=4.4 if one else 3.3)
    everything = np.concatenate([target for _, target in panels.values()])
    for ax, (title, (places, target)) in zip(axes, panels.items(), strict=True):
        dots = ax.scatter(
            *np.asarray(places).T,
            c=target,
            s=12 if len(target) > 500 else 20,
            linewidths=0,
            alpha=0.85,
            vmin=everything.min(),
            vmax=everything.max(),
            rasterized=len(target) > 500,
        )
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.set_aspect("equal", "datalim")
    distinct = np.unique(everything)
    figure.colorbar(
        dots, ax=axes, label=bar, shrink=0.8, ticks=distinct if len(distinct) <= 12 else None
    )
    return figure


@style.drawn
def examples(rows, side=1.15):
    """Images in rows, a caption under each; where one comes with a map [H, W] in 0..1, the map lies
    over it in grey.

    Args:
      rows: [(title or "", [(image u8[H, W, 3], caption, map or None)])].
      side: of an image, inches.
    """
    from matplotlib.figure import Figure

    gap, line = 0.06, 0.24  # inches, between images and of a line of text
    heights = [side + line + (line if title else 0) for title, _ in rows]
    wide, high = (side + gap) * max(len(items) for _, items in rows), sum(heights)
    figure, top = Figure(figsize=(wide, high)), high
    for (title, items), height in zip(rows, heights, strict=True):
        figure.text(0, (top - 0.75 * line) / high, title, fontsize=10)
        bottom = top - height + line
        for k, (image, caption, over) in enumerate(items):
            ax = figure.add_axes((k * (side + gap) / wide, bottom / high, side / wide, side / high))
            ax.set_axis_off()
            if over is None:
                ax.imshow(image)
            else:
                ax.imshow(
                    image.mean(2), cmap="gray", vmin=0, vmax=420
                )  # darker, so that the colours of the map stand out
                ax.imshow(over, vmin=0, vmax=1, alpha=0.15 + 0.75 * over)
            place = (k * (side + gap) + side / 2) / wide, (bottom - 0.68 * line) / high
            figure.text(*place, caption, ha="center", fontsize=9)
        top -= height
    return figure
