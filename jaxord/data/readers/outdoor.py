"""Readers of outdoor scenes: the temperature when a webcam took the picture."""

import math
import os

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.data_sets import published
from jaxord.data.records import by_split
from jaxord.data.splits import shuffled

LISTS = ("skyfinder.csv", "complete_table_with_mcr.csv")
METADATA = ("CamId", "Filename", "TempM", "Hour")


def skyfinder(root, *, fold, seed, table="", images="images", by="image", hours=(11,)):
    """SkyFinder, pictures of webcams; target in degrees Celsius; column camera.

    The published list (28,373 / 3,522 / 3,522) is not public. Its sum, 35,417, is the number that
    Chu, Ho and Borji (2018) kept of the pictures around 11 o'clock, and its parts are a tenth of
    each camera's pictures, rounded down, for validation and for testing. The default draws such
    splits with the seed (our reading, not the paper's).

    Args:
      table: a list with the columns path, temperature, perhaps split (nothing is drawn then) and
        camera; or the data set's own, whose rows with a temperature (TempM; -9999 stands for none)
        of cameras with a folder of images count: each of these images must be there.
      by: "image" divides each camera's pictures; "camera" puts no camera in two splits, a tenth of
        them in val and in test. Errors are far larger then: the background tells much.
      hours: hours of the day to take from the data set's own table (column Hour), () for all.
    """
    data_set = published(root, "skyfinder", images)
    data_set.check("by", by, ("image", "camera"))
    (rows,) = data_set.tables([table or next(filter(data_set.has, LISTS), LISTS[-1])])
    # The published table lists more pictures than people have; a list of their own lists all.
    if set(METADATA) <= set(rows.names):
        pictures = _of_metadata(data_set, rows, hours)
        paths, (targets, cameras) = list(pictures), zip(*pictures.values(), strict=True)
        columns = {"camera": np.array(cameras)}
    else:
        paths, targets = rows.texts("path"), rows.numbers("temperature")
        columns = rows.columns(leave=("path", "temperature", "split"))
    records = data_set.records(paths, targets, columns)
    if "split" in rows.names:
        return by_split(records, rows.texts("split"), rows.path)
    if "camera" not in columns:
        missing = f"{rows.path} has neither a column split nor a column camera to draw splits by"
        raise ValueError(f"{missing}\n{data_set.about}")
    return by_split(records, _draw(columns["camera"], by, seed), rows.path)


def _of_metadata(data_set, rows, hours):
    """{path: (temperature, camera)} of the usable rows of the data set's own table."""
    top = os.path.join(data_set.root, data_set.images)
    store = arrayrecord.find(data_set.root)
    if store:
        stored = {os.path.dirname(path) for path in arrayrecord.metadata(store)["paths"]}
        folders = {os.path.relpath(folder, data_set.images or ".") for folder in stored}
    else:
        folders = set(os.listdir(top)) if os.path.isdir(top) else set()
    pictures = {}
    for camera, file, *numbers in zip(*(rows.texts(name) for name in METADATA), strict=True):
        temperature, hour = map(_number, numbers)
        camera = camera.removesuffix(".0")
        if camera in folders and abs(temperature) < 100 and (not hours or hour in hours):
            # Some pictures stand in the table twice; the first row counts.
            pictures.setdefault(f"{camera}/{file}", (temperature, camera))
    if not pictures:
        raise ValueError(
            f"of the {len(rows.rows)} rows of {rows.path} none has a temperature, an hour of"
            f" {list(hours)} and a folder of images: there are {len(folders)} folders under"
            f" {os.path.abspath(top)}\n{data_set.about}"
        )
    return pictures


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def _draw(cameras, by, seed):
    """The split of each picture: a tenth of each camera's, or of the cameras, is test, one val."""
    names = np.full(len(cameras), "train")
    different = np.unique(cameras)
    if by == "camera":
        if len(different) < 3:
            needs = "skyfinder: by='camera' needs at least three cameras"
            raise ValueError(f"{needs}, there are {different.tolist()}")
        order = different[shuffled(len(different), seed)]
        tenth = max(len(different) // 10, 1)
        names[np.isin(cameras, order[:tenth])] = "test"
        names[np.isin(cameras, order[tenth : 2 * tenth])] = "val"
        return names.tolist()
    # One order for all pictures: a camera keeps its split if another one is added.
    order = shuffled(len(cameras), seed)
    for camera in different:
        rows = order[cameras[order] == camera]
        tenth = len(rows) // 10
        names[rows[:tenth]] = "test"
        names[rows[tenth : 2 * tenth]] = "val"
    return names.tolist()
