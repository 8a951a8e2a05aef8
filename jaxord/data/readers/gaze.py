"""Readers of faces and where they look: the target is pitch and yaw in radians, f32[N, 2].

    direction = -(cos pitch sin yaw, sin pitch, cos pitch cos yaw)

in the camera's coordinates (x right, y down, z away from the camera), so that (0, 0) looks into the
camera. Mirroring an image does not mirror its target: config.data.flip must be off.
"""

import os

import numpy as np

from jaxord.data.data_sets import published
from jaxord.data.records import by_split

PARTICIPANTS = tuple(f"p{k:02d}" for k in range(15))
# A line of p00/p00.txt: 28 fields. The screen is in pixels, face (its centre) and target (the point
# looked at) in millimetres.
FIELDS = (
    "path",
    *("screen_x", "screen_y"),
    *(f"landmark_{k}_{axis}" for k in range(6) for axis in "xy"),
    *(f"head_{part}_{axis}" for part in ("rotation", "translation") for axis in "xyz"),
    *(f"face_{axis}" for axis in "xyz"),
    *(f"target_{axis}" for axis in "xyz"),
    "eye",
)


def mpiifacegaze(root, *, fold, seed, table="", images="", test=2, val=2):
    """MPIIFaceGaze, faces of 15 participants in front of their laptops; column participant.

    No participant is in two splits. Fold k, 0 to 14, tests on the `test` participants from the k-th
    on, in the order of their names and around the end, and validates on the next `val`, if any.
    With 3,000 images each, as in the normalised images, this gives the published sizes, 33,000 /
    6,000 / 6,000; which participants those are is not published. test=1, val=0 leaves one out.
    `table` is a list; "" is gaze.csv or, without it, the data set's own annotations.
    """
    data_set = published(root, "mpiifacegaze", images)
    if table or data_set.has("gaze.csv"):
        paths, angles, people = _from_list(data_set, table or "gaze.csv")
    else:
        paths, angles, people = _from_annotations(data_set)
    records = data_set.records(paths, angles, {"participant": np.array(people)})
    names = sorted(set(people))
    data_set.check("fold", fold, [str(k) for k in range(len(names))])
    split_of = _participant_splits(names, int(fold), test, val)
    return by_split(records, [split_of[name] for name in people], os.path.abspath(root))


def _from_list(data_set, file):
    """(paths, angles f32[N, 2], participants) of a list with the angles."""
    (table,) = data_set.tables([file])
    angles = np.stack([table.numbers("pitch"), table.numbers("yaw")], axis=1)  # [N, 2]
    largest = np.abs(angles).max()
    if largest > np.pi:
        reach = f"{table.path}: pitch and yaw reach {largest:g}"
        raise ValueError(f"{reach}; they are angles in radians")
    return table.texts("path"), angles, table.texts("participant")


def _from_annotations(data_set):
    """(paths, angles f32[N, 2], participants) of the data set's own files."""
    tables = data_set.tables([f"{name}/{name}.txt" for name in PARTICIPANTS], FIELDS)
    paths, people = [], []
    for name, table in zip(PARTICIPANTS, tables, strict=True):
        paths += [f"{name}/{path}" for path in table.texts("path")]
        people += [name] * len(table.rows)
    return paths, np.concatenate([_angles(table) for table in tables]), people


def _angles(table):
    """f32[N, 2]: pitch = arcsin(-y), yaw = arctan2(-x, -z) of the unit vector face -> target."""
    face, target = (
        np.stack([table.numbers(f"{point}_{axis}") for axis in "xyz"], axis=1)
        for point in ("face", "target")
    )
    gaze = target.astype(np.float64) - face  # [N, 3]
    length = np.linalg.norm(gaze, axis=1, keepdims=True)
    if not length.all():
        where = f"{table.path}, line {table.lines[int(np.argmin(length))]}"
        raise ValueError(f"{where}: the gaze target is the centre of the face: no direction")
    x, y, z = (gaze / length).T
    return np.stack([np.arcsin(-y), np.arctan2(-x, -z)], axis=1).astype(np.float32)


def _participant_splits(names, fold, test, val):
    """{participant: split} of a fold."""
    count = len(names)
    if test < 1 or val < 0 or test + val >= count:
        counts = f"test={test} and val={val} participants of {count}"
        raise ValueError(f"{counts}; one at least must be left to train on")
    turned = names[fold:] + names[:fold]
    splits = ["test"] * test + ["val"] * val + ["train"] * (count - test - val)
    return dict(zip(turned, splits, strict=True))
