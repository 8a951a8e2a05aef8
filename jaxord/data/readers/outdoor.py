"""Readers of outdoor scenes: the temperature when a webcam took the picture.

`fold` and `seed` are those of the run.
"""

import math
import os

import numpy as np

from jaxord.data import arrayrecord
from jaxord.data.records import by_split, image_records, require
from jaxord.data.splits import shuffled
from jaxord.data.tables import read_table

LISTS = ("skyfinder.csv", "complete_table_with_mcr.csv")
METADATA = ("CamId", "Filename", "TempM", "Hour")


def skyfinder(root, *, fold, seed, table="", images="images", by="image", hours=(11,)):
    """SkyFinder, pictures of webcams; the target is the temperature in degrees Celsius; column
    camera.

    The published list (28,373 / 3,522 / 3,522) is not public. Its sum, 35,417, is what Chu, Ho and
    Borji (2018) kept of the pictures taken around 11 o'clock, and its parts are what a tenth of
    each camera's pictures for validation and for testing, rounded down, comes to; so that is the
    default here, drawn with the seed (our reading, not the paper's).

    From the data set's own table the rows with a temperature are taken (TempM; -9999 stands for
    none), of the cameras that have a folder of images; of these every image must be there.

    Args:
        root: folder.
        fold: not used.
        seed: of the draw; a list with a column `split` needs none.
        table: a list with the columns path, temperature, perhaps split and camera, or the data
          set's own table.
        images: folder of the images.
        by: "image": each camera's pictures are divided; "camera": no camera in two splits, a tenth
          of them each for
            validation and testing. Errors are far larger with the latter: the background of a
            camera tells much.
        hours: of the data set's own table: hours of the day (column Hour), () for all.
    """
    about = (
        "lists: complete_table_with_mcr.csv of the SkyFinder data set (R. P. Mihail, Valdosta State University), or a list"
        " of your own with the columns path, temperature and perhaps split (train, val, test) and camera. Images:"
        " SkyFinder, an archive a camera.\n"
        f"layout: <root>/complete_table_with_mcr.csv, <root>/{images}/<CamId>/<Filename>; or <root>/skyfinder.csv,"
        f" <root>/{images}/<path of the list>"
    )
    if by not in ("image", "camera"):
        raise ValueError(f"skyfinder: by is {by!r}; it is 'image' or 'camera'")
    there = [file for file in LISTS if os.path.isfile(os.path.join(root, file))]
    rows = read_table(*require(root, [table or (there or LISTS[1:])[0]], about))
    columns = {}
    if set(METADATA) <= set(rows.names):
        found = _of_metadata(root, rows, images, hours, about)
        paths, (targets, cameras) = list(found), zip(*found.values(), strict=True)
        columns["camera"] = np.array(cameras)
    else:
        paths = [f"{images}/{path}" for path in rows.texts("path")]
        targets = rows.numbers("temperature")
        columns = rows.columns(leave=("path", "temperature", "split"))
    records = image_records(root, paths, targets, name="skyfinder", about=about, columns=columns)
    if "split" in rows.names:
        return by_split(records, rows.texts("split"), rows.path)
    if "camera" not in columns:
        raise ValueError(
            f"{rows.path} has neither a column split nor a column camera to draw splits by\n{about}"
        )
    return by_split(records, _draw(columns["camera"], by, seed), rows.path)


def _of_metadata(root, rows, images, hours, about):
    """{path: (temperature, camera)} of the rows of the data set's own table that count."""
    store = arrayrecord.find(root)
    if store:
        kept = {os.path.dirname(path) for path in arrayrecord.metadata(store)["paths"]}
    else:
        top = os.path.join(root, images)
        kept = {f"{images}/{name}" for name in os.listdir(top)} if os.path.isdir(top) else set()
    found = {}
    for camera, file, *numbers in zip(*(rows.texts(name) for name in METADATA), strict=True):
        temperature, hour = map(_number, numbers)
        camera = camera.removesuffix(".0")
        if f"{images}/{camera}" in kept and abs(temperature) < 100 and (not hours or hour in hours):
            found.setdefault(f"{images}/{camera}/{file}", (temperature, camera))
    if not found:
        raise ValueError(
            f"of the {len(rows.rows)} rows of {rows.path} none has a temperature, an hour of {list(hours)} and a folder of"
            f" images: there are {len(kept)} folders under {os.path.join(os.path.abspath(root), images)}\n{about}"
        )
    return found


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def _draw(cameras, by, seed):
    """The split of each picture: of all that a camera took, or of all cameras, a tenth each are
    test and val."""
    names = np.full(len(cameras), "train")
    different = np.unique(cameras)
    if by == "camera":
        if len(different) < 3:
            raise ValueError(
                f"skyfinder: by='camera' needs at least three cameras, there are {different.tolist()}"
            )
        order, tenth = different[shuffled(len(different), seed)], max(len(different) // 10, 1)
        names[np.isin(cameras, order[:tenth])] = "test"
        names[np.isin(cameras, order[tenth : 2 * tenth])] = "val"
        return names.tolist()
    order = shuffled(len(cameras), seed)
    for camera in different:
        rows = order[cameras[order] == camera]
        tenth = len(rows) // 10
        names[rows[:tenth]] = "test"
        names[rows[tenth : 2 * tenth]] = "val"
    return names.tolist()
