"""Group-DIR's figures: predictions of groups, and how far they miss.

G groups.
"""

import numpy as np

from jaxord.report.figures import style


@style.drawn
def histograms(panels):
    """Counts of each group, {title: (true [G], predicted [G])} (Group-DIR Figures 2 and 4)."""
    figure, axes = style.canvas(len(panels), width=3.6, height=2.9, sharex=True, sharey=True)
    for ax, (title, (true, predicted)) in zip(axes, panels.items(), strict=True):
        place = np.arange(len(true))
        ax.bar(place, true, width=0.9, color=style.GREY, label="true")
        ax.bar(place, predicted, width=0.42, color=style.COLOURS[0], label="predicted")
        ax.set(title=title, xlabel="group", yscale="log")
        style.name_ticks(ax.xaxis, place, most=12)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylim(bottom=0.5)  # of all panels
    for ax in axes[::3]:
        ax.set_ylabel("samples")
    style.legend(figure, axes)
    return figure


@style.drawn
def distance(series, count):
    """Mean |predicted - true group| over the true group (Group-DIR Figure 5).

    Args:
      series: {label: f[G]}, nan for a group without samples.
      count: [G], samples of each group, as bars behind the lines.
    """
    figure, (ax,) = style.canvas(1, width=6.4, height=3.6)
    behind = ax.twinx()
    behind.bar(range(len(count)), count, color="#ececec", width=0.9)
    behind.set_ylabel("samples (bars)", color=style.DARK)
    behind.grid(False)
    behind.spines["top"].set_visible(False)
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
    for k, (label, values) in enumerate(series.items()):
        look = style.line(k, dashed=True)
        ax.plot(range(len(values)), values, marker="o", markersize=4.5, label=label, **look)
    ax.set(xlabel="true group", ylabel="mean |predicted − true group|", ylim=(0, None))
    style.name_ticks(ax.xaxis, range(len(count)), most=20)
    style.legend(figure, [ax])
    return figure
