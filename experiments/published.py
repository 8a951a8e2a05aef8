"""Figures that the papers print, as they print them, and how they stand beside ours.

An experiment holds them as PAPER, a tuple of `Table`. A column is "<data set>:<metric>" or "<data
set>:<metric>,<part>", a part being one that tools/table.py knows: many, median and few-shot labels,
a category of folds, an evaluation. "%" at the end says that the paper prints percent where ours are
shares. A row is a text of as many figures, "-" where there is none.
"""

import collections

# source: "NumCLIP Table 2"; columns: a text of columns; rows: label of the experiment -> text of
# figures; others: the same of what is quoted only and not run here, by its name in the paper.
Table = collections.namedtuple("Table", "source columns rows others", defaults=({},))


def across(source, column, settings, rows, others=()):
    """A table whose columns are settings of one metric: the figures of "label" stand at the labels
    "label,setting".

    Args:
      source, column: of the Table.
      settings: what stands behind the comma, in the order of the figures.
      rows, others: as of Table.
    """

    def spread(figures):
        return {
            f"{label},{setting}": figure
            for label, row in dict(figures).items()
            for setting, figure in zip(settings, row.split(), strict=True)
        }

    return Table(source, column, spread(rows), spread(others))


def among(tables, labels, note):
    """The tables with the rows of these labels only, and what is different there behind their
    source."""
    return tuple(
        table._replace(
            source=f"{table.source} ({note})",
            others={},
            rows={label: row for label, row in table.rows.items() if label in labels},
        )
        for table in tables
    )


def printed(tables, data_set):
    """What is printed on a data set.

    Args:
      tables: [Table].
      data_set: name of its config file.

    Returns:
      (cells, titles, sources): {(name of a row, title of a column): text}, a text being figures
      with the numbers of their sources, "6.09 [1, 2]; 6.91 [3]"; the titles of all columns, "mae"
      or "mae, few"; the sources, [1] first.
    """
    found, titles, sources = collections.defaultdict(dict), [], []
    for table in tables:
        columns = table.columns.split()
        if data_set not in data_sets([table]):
            continue
        titles += [title(column) for column in columns if column.startswith(f"{data_set}:")]
        sources += [table.source] if table.source not in sources else []
        for name, row in {**table.rows, **table.others}.items():
            for column, figure in zip(columns, row.split(), strict=True):
                if column.startswith(f"{data_set}:") and figure != "-":
                    figure = figure.replace("±", " ± ") + " %" * column.endswith("%")
                    found[name, title(column)].setdefault(figure, []).append(
                        str(1 + sources.index(table.source))
                    )
    cells = {
        place: "; ".join(f"{figure} [{', '.join(numbers)}]" for figure, numbers in figures.items())
        for place, figures in found.items()
    }
    return cells, list(dict.fromkeys(titles)), sources


def data_sets(tables):
    """Names of the data sets of the columns."""
    return list(
        dict.fromkeys(
            column.partition(":")[0] for table in tables for column in table.columns.split()
        )
    )


def title(column):
    """ "agedb:mae,few" -> "mae, few"."""
    return column.partition(":")[2].rstrip("%").replace(",", ", ")
