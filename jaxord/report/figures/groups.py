"""Group-DIR's figures: how its groups are predicted, and what that does to the regression.

G groups.
"""

import numpy as np

from jaxord.report.figures import style


@style.drawn
def histograms(panels):
    """Samples that each group truly has and is predicted to have, on a logarithmic scale (Group-DIR
    Figures 2 and 4).

    Args:
      panels: {title: (true [G], predicted [G])}; counts, means over runs too.
    """
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
def distance(series, count=None):
    """Mean |predicted - true group| of the samples of each true group (Group-DIR Figure 5).

    Args:
      series: {label: f[G]}, nan where a group has no samples.
      count: [G], samples of each group, behind the lines; None leaves them out.
    """
    figure, (ax,) = style.canvas(1, width=6.4, height=3.6)
    if count is not None:
        behind = ax.twinx()
        behind.bar(range(len(count)), count, color="#ececec", width=0.9)
        behind.set_ylabel("samples (bars)", color=style.DARK)
        behind.grid(False)
        behind.spines["top"].set_visible(False)
        ax.set_zorder(behind.get_zorder() + 1)
        ax.patch.set_visible(False)
    for k, (label, values) in enumerate(series.items()):
        ax.plot(
            range(len(values)),
            values,
            marker="o",
            markersize=4.5,
            label=label,
            **style.line(k, dashed=True),
        )
    ax.set(xlabel="true group", ylabel="mean |predicted − true group|", ylim=(0, None))
    style.name_ticks(ax.xaxis, range(max(map(len, series.values()))), most=20)
    style.legend(figure, [ax])
    return figure
