"""Readers of faces and where they look: the target is pitch and yaw in radians, f32[N, 2].

    direction = -(cos pitch sin yaw, sin pitch, cos pitch cos yaw)

in the camera's coordinates (x right, y down, z away from the camera), so that (0, 0) looks into the
camera. A mirrored face looks the other way: config.data.flip must be off, because targets are not
mirrored with the image.

`fold` and `seed` are those of the run.
"""

import os

import numpy as np

from jaxord.data.records import by_split, image_records, require
from jaxord.data.tables import read_table

PARTICIPANTS = tuple(f"p{k:02d}" for k in range(15))
# A line of p00/p00.txt: 28 fields.
FIELDS = (
    "path",
    *("screen_x", "screen_y"),  # of the gaze, in pixels
    *(f"landmark_{k}_{axis}" for k in range(6) for axis in "xy"),
    *(f"head_{part}_{axis}" for part in ("rotation", "translation") for axis in "xyz"),
    *(f"face_{axis}" for axis in "xyz"),  # its centre, in millimetres
    *(f"target_{axis}" for axis in "xyz"),  # what is looked at, likewise
    "eye",
)


def mpiifacegaze(root, *, fold, seed, table="", images="", test=2, val=2):
    """MPIIFaceGaze, faces of 15 participants in front of their laptops; column participant.

    No participant is in two splits. Fold k tests on `test` participants from the k-th on, in the
    order of their names and around the end, and validates on the `val` participants after them.
    With 3,000 images each, as in the normalised images, the defaults have the published sizes,
    33,000 / 6,000 / 6,000; which participants those are is not published. test=1, val=0 leaves one
    participant out.

    Args:
        root: folder.
        fold: "0" to "14".
        seed: not used.
        table: a list; without, gaze.csv, or where there is none the data set's own annotations.
        images: folder of the images.
        test: number of participants.
        val: number of participants; 0 makes no validation split.
    """
    inside = f"<root>/{images}/" if images else "<root>/"
    about = (
        "lists: gaze.csv with the columns path, pitch, yaw (radians) and participant (our choice: export the .mat files of"
        " the normalised images to it), or the data set's own annotations, from which the angles are computed. Images:"
        " MPIIFaceGaze of Zhang, Sugano, Fritz and Bulling.\n"
        f"layout: <root>/gaze.csv, {inside}<path of the list>; or <root>/p{{00..14}}/p{{00..14}}.txt,"
        f" {inside}p00/day01/0005.jpg, ..."
    )
    if table or os.path.isfile(os.path.join(root, "gaze.csv")):
        rows = read_table(*require(root, [table or "gaze.csv"], about))
        paths, people = rows.texts("path"), rows.texts("participant")
        angles = np.stack([rows.numbers("pitch"), rows.numbers("yaw")], axis=1)  # [N, 2]
        if np.abs(angles).max() > np.pi:
            raise ValueError(
                f"{rows.path}: pitch and yaw reach {np.abs(angles).max():g}; they are angles in radians"
            )
    else:
        files = require(root, [f"{name}/{name}.txt" for name in PARTICIPANTS], about)
        tables = [read_table(file, names=FIELDS) for file in files]
        named = [
            (name, path)
            for name, rows in zip(PARTICIPANTS, tables, strict=True)
            for path in rows.texts("path")
        ]
        paths, people = [f"{name}/{path}" for name, path in named], [name for name, _ in named]
        angles = np.concatenate([_angles(rows) for rows in tables])
    paths = [f"{images}/{path}" if images else path for path in paths]
    columns = {"participant": np.array(people)}
    records = image_records(root, paths, angles, name="mpiifacegaze", about=about, columns=columns)

    names = sorted(set(people))
    if fold not in map(str, range(len(names))):
        raise ValueError(
            f"mpiifacegaze has no fold {fold!r}; with {len(names)} participants it is 0 to {len(names) - 1}"
        )
    if test < 1 or val < 0 or test + val >= len(names):
        raise ValueError(
            f"test={test} and val={val} participants of {len(names)}; one at least must be left to train on"
        )
    turn = names[int(fold) :] + names[: int(fold)]
    held = {**dict.fromkeys(turn[:test], "test"), **dict.fromkeys(turn[test : test + val], "val")}
    return by_split(records, [held.get(name, "train") for name in people], os.path.abspath(root))


def _angles(rows):
    """f32[N, 2]: pitch = arcsin(-y), yaw = arctan2(-x, -z) of the unit vector from the face's
    centre to the target."""
    centre, target = (
        np.stack([rows.numbers(f"{what}_{axis}") for axis in "xyz"], axis=1)
        for what in ("face", "target")
    )
    gaze = target.astype(np.float64) - centre  # [N, 3]
    length = np.linalg.norm(gaze, axis=1, keepdims=True)
    if not length.all():
        line = rows.lines[int(np.argmin(length))]
        raise ValueError(
            f"{rows.path}, line {line}: the gaze target is the centre of the face, which is no direction"
        )
    x, y, z = (gaze / length).T
    return np.stack([np.arcsin(-y), np.arctan2(-x, -z)], axis=1).astype(np.float32)
