"""What all figures share: colours that the colour-blind tell apart, sizes, ticks, and the way into
a file.

Figures are made without pyplot: nothing is global and no window opens. matplotlib is imported where
  one is drawn.
"""

import functools
import io
import itertools
import math

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito, without the yellow
DASHES = ("-", "--", "-.", ":")
GREY, DARK = "#b8b8b8", "#444444"
STYLE = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "image.cmap": "viridis",
    "figure.facecolor": "white",
    "svg.hashsalt": "jaxord",
    "svg.fonttype": "path",
    "axes.formatter.useoffset": False,
}
MOST_TICKS = 16


def drawn(function):
    """Draws under STYLE; the decorator of every figure.

    Raises:
      ValueError: matplotlib is not installed.
    """

    @functools.wraps(function)
    def styled(*arguments, **settings):
        try:
            import matplotlib
        except ModuleNotFoundError:
            raise ValueError("figures need matplotlib: pip install 'jaxord[report]'") from None
        with matplotlib.rc_context(STYLE):
            return function(*arguments, **settings)

    return styled


def canvas(panels, *, columns=3, width=3.4, height=2.7, **shared):
    """(figure, list of axes) with a grid for that many panels; sizes of one in inches, `shared` as
    of Figure.subplots."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06, hspace=0.03, wspace=0.02)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for unused in axes[panels:]:
        unused.remove()
    return figure, list(axes[:panels])


def legend(figure, axes):
    """One legend for all panels, below them, where more than one thing has a name."""
    found = {
        text: handle
        for ax in axes
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if len(found) > 1:
        entry = 0.6 + 0.085 * max(map(len, found))  # inches that the longest one takes
        columns = max(1, min(5, len(found), int(figure.get_figwidth() / entry)))
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)


def name_ticks(axis, names, most=MOST_TICKS):
    """Names at 0, 1, 2, ... of an axis, one for all neighbours of a name in their middle; only each
    second, third, ... where there are many, slanted where they are long."""
    runs = [
        [place for place, _ in same]
        for _, same in itertools.groupby(enumerate(names), lambda pair: pair[1])
    ]
    if len(runs) <= most:
        ticks = [(run[0] + run[-1]) / 2 for run in runs]
        shown = [str(names[run[0]]) for run in runs]
    else:
        ticks = range(0, len(names), math.ceil(len(names) / most))
        shown = [str(names[tick]) for tick in ticks]
    slanted = axis.axis_name == "x" and (max(map(len, shown)) > 4 or len("".join(shown)) > 32)
    axis.set_ticks(
        ticks,
        shown,
        **({"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}),
    )


def line(k, dashed=False):
    """Colour and dashes of the k-th line; `dashed` lets neighbours differ in both, so that one
    shows through the other."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[(k if dashed else k // len(COLOURS)) % len(DASHES)],
    }


@drawn
def svg(figure):
    """The figure as SVG text, the same for the same figure."""
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    return file.getvalue()


@drawn
def write_png(figure, path):
    """Writes the figure to a PNG file."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
