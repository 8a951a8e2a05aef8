"""Shared by all figures: colours for the colour-blind, sizes, ticks, and the formats of files.

Without pyplot, so nothing is global and no window opens. matplotlib is imported when one is drawn.
"""

import functools
import io
import itertools
import math
import pathlib

from jaxord.shipped import install_hint

# Okabe and Ito, without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
GREY, DARK = "#b8b8b8", "#444444"
STYLE = pathlib.Path(__file__).with_name("figures.mplstyle")
MOST_TICKS = 16
SLANTED = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


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
            raise ValueError(f"figures need matplotlib: {install_hint('report')}") from None
        style = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
        with matplotlib.rc_context(style):
            return function(*arguments, **settings)

    return styled


def canvas(panels, *, columns=3, width=3.4, height=2.7, **shared):
    """(figure, list of axes) of a grid of `panels`, each of `width` by `height` inches.

    At most `columns` are side by side; `shared` are settings of Figure.subplots.
    """
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
    """One legend below all panels, if there are at least two names."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    handles = {text: handle for some in pairs for handle, text in some}
    if len(handles) > 1:
        entry = 0.6 + 0.085 * max(map(len, handles))  # inches of the longest one
        columns = max(1, min(5, len(handles), int(figure.get_figwidth() / entry)))
        place = {"loc": "outside lower center", "ncols": columns}
        figure.legend(handles.values(), handles.keys(), **place)


def name_ticks(axis, names, most=MOST_TICKS):
    """Names the places 0, 1, 2, ... of an axis with at most about `most` ticks.

    Labels runs of equal names once, thins crowded ticks, slants long ones.
    """
    runs = [[*run] for _, run in itertools.groupby(range(len(names)), lambda k: names[k])]
    if len(runs) <= most:
        ticks = [(run[0] + run[-1]) / 2 for run in runs]
        shown = [str(names[run[0]]) for run in runs]
    else:
        ticks = range(0, len(names), math.ceil(len(names) / most))
        shown = [str(names[tick]) for tick in ticks]
    slanted = axis.axis_name == "x" and (max(map(len, shown)) > 4 or len("".join(shown)) > 32)
    axis.set_ticks(ticks, shown, **(SLANTED if slanted else {}))


def name_rows(ax, names):
    """Names the rows 0, 1, 2, ... of a chart, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def line(k, dashed=False):
    """Colour and dashes of the k-th line; `dashed` lets neighbours differ in both."""
    dashes = DASHES[(k if dashed else k // len(COLOURS)) % len(DASHES)]
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": dashes}


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
