"""Runs side by side: metrics of settings, metrics against a number, and paired gains.

S seeds.
"""

import numpy as np

from jaxord.report.figures import style
from jaxord.workdir.results import center_and_sd


@style.drawn
def dots(rows, panels, baselines):
    """A row a setting, a panel a metric: each seed, mean and deviation, and baselines as lines.

    Args:
      rows: labels.
      panels: {title: {label: numbers [S]}}; a label may be missing.
      baselines: {title: {name: number}}.
    """
    names = list(dict.fromkeys(name for lines in baselines.values() for name in lines))
    width = (2.6 if len(panels) > 1 else 4.5) + 0.06 * max(map(len, rows)) / len(panels)
    size = {"columns": len(panels), "width": width, "height": 1.5 + 0.27 * len(rows)}
    figure, axes = style.canvas(len(panels), sharey=True, **size)
    small = {"s": 14, "color": style.COLOURS[5], "linewidths": 0, "zorder": 2}
    large = {"fmt": "o", "markersize": 5, "color": style.COLOURS[0], "capsize": 2, "zorder": 3}
    for ax, (title, numbers) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            seeds = numbers.get(row, ())
            mean, sd = center_and_sd(seeds)
            # A metric can be undefined for a seed, such as a correlation of constants.
            if np.isfinite(mean):
                ax.scatter(seeds, np.full(len(seeds), place), **small)
                ax.errorbar(mean, place, xerr=np.nan_to_num(sd), **large)
        for name, number in baselines.get(title, {}).items():
            if np.isfinite(number):
                look = style.line(names.index(name) + 1, dashed=True)
                ax.axvline(number, linewidth=1.2, label=name, **look)
        ax.set(title=title)
        style.name_rows(ax, rows)
    style.legend(figure, axes)
    return figure


@style.drawn
def against_number(panels, x):
    """A metric against a number of the settings, such as a temperature; a line a setting.

    Args:
      panels: {title: {label: [(number, metric of each seed [S])]}}, numbers ascending.
      x: name of the number; its axis is logarithmic if positive numbers span a factor of 30.
    """
    figure, axes = style.canvas(len(panels), width=3.5, height=2.9)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, points in lines.items():
            look = style.line(labels.index(label), dashed=True)
            look |= {"label": label, "marker": "o", "markersize": 5, "capsize": 3}
            # One seed has no deviation: its bar has no length.
            means, sds = zip(*(center_and_sd(seeds) for _, seeds in points), strict=True)
            ax.errorbar([x for x, _ in points], means, np.nan_to_num(sds), **look)
        ticks = sorted({x for points in lines.values() for x, _ in points})
        if ticks[0] > 0 and ticks[-1] > 30 * ticks[0]:
            ax.set_xscale("log")
        elif len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(title=title, xlabel=x)
    style.legend(figure, axes)
    return figure


@style.drawn
def gains(claims):
    """Paired gains beside zero, [(text, mean, half width of the interval or nan)]."""
    width = 5.0 + 0.05 * max(len(text) for text, _, _ in claims)
    figure, (ax,) = style.canvas(1, width=width, height=1.0 + 0.3 * len(claims))
    ax.axvline(0, color=style.DARK, linewidth=1)
    for row, (_, mean, half) in enumerate(claims):
        is_sure = np.isfinite(half) and abs(mean) > half
        colour = style.COLOURS[0 if mean > 0 else 1] if is_sure else style.DARK
        look = {"color": colour, "markerfacecolor": colour if is_sure else "white", "capsize": 3}
        bar = half if np.isfinite(half) else None
        ax.errorbar(mean, row, xerr=bar, fmt="o" if is_sure else "s", **look)
    style.name_rows(ax, [text for text, _, _ in claims])
    ax.set(xlabel="gain of the first over the second")
    ax.grid(axis="y", visible=False)
    return figure
