"""How a training went: curves over its steps.

S seeds, n logged steps.
"""

import numpy as np

from jaxord.report.figures import style

ROUGH = 300  # points from which on a running mean is drawn over them
DECADES = 30.0  # ratio of largest to smallest from which on an axis is logarithmic


@style.drawn
def curves(panels, x="step", columns=3, logarithmic=False, linear=()):
    """Lines over steps or epochs; of several seeds their mean, with a band from the lowest to the
    highest.

    An axis is logarithmic where positive values span a factor of 30. Of lines with more than 300
    points the points stand in a light colour behind a running mean over a fiftieth of them.

    Args:
      panels: {title: {label: (steps [n], values [n] or [S, n])}}; of labels "a, b" the colour is
        that of a, the dashes b's.
      x: what the horizontal axis shows.
      columns: panels side by side.
      logarithmic: make every vertical axis of positive values logarithmic.
      linear: titles of panels that never are, such as correlations.
    """
    figure, axes = style.canvas(
        len(panels), columns=columns, **({"width": 5.6, "height": 3.6} if len(panels) == 1 else {})
    )
    names = [label.partition(", ") for lines in panels.values() for label in lines]
    colours, dashes = (
        list(dict.fromkeys(filter(None, (name[part] for name in names)))) for part in (0, 2)
    )
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, (steps, values) in lines.items():
            first, _, second = label.partition(", ")
            look = style.line(colours.index(first))
            if second:
                look["linestyle"] = style.DASHES[dashes.index(second) % len(style.DASHES)]
            _line(ax, np.asarray(steps), np.atleast_2d(np.asarray(values, float)), label, look)
        everything = np.concatenate([np.ravel(values) for _, values in lines.values()])
        everything = everything[np.isfinite(everything)]
        wide = (
            len(everything)
            and everything.min() > 0
            and (logarithmic or everything.max() > DECADES * everything.min())
        )
        if wide and title not in linear:
            ax.set_yscale("log")
        ax.set(title=title, xlabel=x)
    style.legend(figure, axes)
    return figure


def _line(ax, steps, values, label, look):
    mean = values.mean(0)
    marker = "o" if len(steps) <= 12 else None
    if len(values) > 1:
        ax.fill_between(
            steps, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0
        )
    if len(steps) > ROUGH:
        ax.plot(steps, mean, color=look["color"], alpha=0.25, linewidth=0.7, rasterized=True)
        width = len(steps) // 50
        mean = np.convolve(mean, np.full(width, 1 / width), "valid")
        steps = steps[width // 2 :][: len(mean)]
    ax.plot(steps, mean, label=label, marker=marker, markersize=4, **look)
