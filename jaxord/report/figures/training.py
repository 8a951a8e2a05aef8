"""Learning curves.

S seeds, n logged steps.
"""

import numpy as np

from jaxord.report.figures import style

ROUGH = 300  # points from which on a running mean is drawn over them
DECADES = 30.0  # ratio of largest to smallest from which on an axis is logarithmic


@style.drawn
def curves(panels, x="step", logarithmic=False, linear=()):
    """Lines over steps or epochs; of several seeds their mean, in a band from lowest to highest.

    An axis is logarithmic if positive values span a factor of 30. A line of more than 300 points
    gets a running mean over a fiftieth of them.

    Args:
      panels: {title: {label: (steps [n], values [n] or [S, n])}}; the colour of a label "a, b"
        follows from a, its dashes from b.
      x: name of the horizontal axis.
      logarithmic: makes every vertical axis of positive values logarithmic.
      linear: titles of panels that never are, such as correlations.
    """
    size = {"width": 5.6, "height": 3.6} if len(panels) == 1 else {}
    figure, axes = style.canvas(len(panels), **size)
    names = [label.partition(", ") for lines in panels.values() for label in lines]
    colours = list(dict.fromkeys(first for first, _, _ in names if first))
    dashes = list(dict.fromkeys(second for _, _, second in names if second))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, (steps, values) in lines.items():
            first, _, second = label.partition(", ")
            look = style.line(colours.index(first))
            if second:
                look["linestyle"] = style.DASHES[dashes.index(second) % len(style.DASHES)]
            _line(ax, np.asarray(steps), np.atleast_2d(np.asarray(values, float)), label, look)
        everything = np.concatenate([np.ravel(values) for _, values in lines.values()])
        everything = everything[np.isfinite(everything)]
        # Losses fall by orders of magnitude, correlations may not.
        if title not in linear and len(everything) and everything.min() > 0:
            if logarithmic or everything.max() > DECADES * everything.min():
                ax.set_yscale("log")
        ax.set(title=title, xlabel=x)
    style.legend(figure, axes)
    return figure


def _line(ax, steps, values, label, look):
    mean, colour = values.mean(0), look["color"]
    marker = "o" if len(steps) <= 12 else None
    if len(values) > 1:
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        ax.fill_between(steps, values.min(0), values.max(0), **band)
    if len(steps) > ROUGH:
        ax.plot(steps, mean, color=colour, alpha=0.25, linewidth=0.7, rasterized=True)
        width = len(steps) // 50
        mean = np.convolve(mean, np.full(width, 1 / width), "valid")
        steps = steps[width // 2 :][: len(mean)]
    ax.plot(steps, mean, label=label, marker=marker, markersize=4, **look)
