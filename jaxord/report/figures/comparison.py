"""Runs side by side: a metric for each setting, against a number, and paired gains.

S seeds.
"""

import numpy as np

from jaxord.report.figures import style


@style.drawn
def dots(rows, panels, baselines):
    """A row a setting, a panel a metric: mean and standard deviation over the seeds, each seed, and
    baselines as lines.

    Args:
      rows: [label].
      panels: {title: {label: numbers [S]}}; a label may be missing.
      baselines: {title: {name: number}}.
    """
    names = list(dict.fromkeys(name for lines in baselines.values() for name in lines))
    width = 2.6 if len(panels) > 1 else 4.5
    figure, axes = style.canvas(
        len(panels),
        columns=len(panels),
        width=width + 0.06 * max(map(len, rows)) / len(panels),
        height=1.5 + 0.27 * len(rows),
        sharey=True,
    )
    for ax, (title, numbers) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            seeds = np.asarray(numbers.get(row, ()), float)
            if not len(seeds) or not np.isfinite(seeds).all():
                continue
            ax.scatter(
                seeds,
                np.full(len(seeds), place),
                s=14,
                color=style.COLOURS[5],
                linewidths=0,
                zorder=2,
            )
            spread = seeds.std(ddof=1) if len(seeds) > 1 else 0.0
            ax.errorbar(
                seeds.mean(),
                place,
                xerr=spread,
                fmt="o",
                markersize=5,
                color=style.COLOURS[0],
                capsize=2,
                zorder=3,
            )
        for name, number in baselines.get(title, {}).items():
            if np.isfinite(number):
                ax.axvline(
                    number,
                    linewidth=1.2,
                    label=name,
                    **style.line(names.index(name) + 1, dashed=True),
                )
        ax.set(title=title, ylim=(len(rows) - 0.5, -0.5))
    axes[0].set_yticks(range(len(rows)), rows)
    style.legend(figure, axes)
    return figure


@style.drawn
def against_number(panels, x):
    """A metric against a number among the settings, such as a temperature or how many groups there
    are; a line a setting.

    Args:
      panels: {title: {label: (numbers [n], mean [n], standard deviation [n])}}.
      x: name of the number; a logarithmic axis where the numbers are positive and span a factor of
        30.
    """
    figure, axes = style.canvas(len(panels), width=3.5, height=2.9)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, (numbers, mean, spread) in lines.items():
            look = style.line(labels.index(label), dashed=True)
            ax.errorbar(
                numbers, mean, spread, label=label, marker="o", markersize=5, capsize=3, **look
            )
        ticks = np.unique(np.concatenate([numbers for numbers, _, _ in lines.values()]))
        if ticks[0] > 0 and ticks[-1] > 30 * ticks[0]:
            ax.set_xscale("log")
        elif len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(title=title, xlabel=x)
    style.legend(figure, axes)
    return figure


@style.drawn
def gains(claims):
    """Paired gains with their intervals beside zero: right of it the first is better.

    Args:
      claims: [(text, mean, half width of the interval or nan)].
    """
    figure, (ax,) = style.canvas(
        1,
        width=5.0 + 0.05 * max(len(text) for text, _, _ in claims),
        height=1.0 + 0.3 * len(claims),
    )
    ax.axvline(0, color=style.DARK, linewidth=1)
    for row, (_, mean, half) in enumerate(claims):
        sure = np.isfinite(half) and abs(mean) > half
        colour = style.DARK if not sure else style.COLOURS[0] if mean > 0 else style.COLOURS[1]
        ax.errorbar(
            mean,
            row,
            xerr=half if np.isfinite(half) else None,
            fmt="o" if sure else "s",
            color=colour,
            markerfacecolor=colour if sure else "white",
            capsize=3,
        )
    ax.set_yticks(range(len(claims)), [text for text, _, _ in claims])
    ax.set(ylim=(len(claims) - 0.5, -0.5), xlabel="gain of the first over the second")
    ax.grid(axis="y", visible=False)
    return figure
