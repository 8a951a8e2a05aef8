"""Published data sets: lists under a root become tables, images records.

data_sets.toml says where each comes from and how it lies under the root.
"""

import dataclasses
import os
import pathlib
import tomllib

from jaxord.data.records import image_records
from jaxord.data.tables import read_table


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The lists and images of a data set; `about` ends messages about missing files.

    Paths in lists are relative to `images` under the root; "{split}" in it is the split's name.
    """

    root: str
    name: str
    about: str
    images: str = ""

    def has(self, *names):
        """Whether all these files lie under the root."""
        return all(os.path.isfile(os.path.join(self.root, name)) for name in names)

    def check(self, setting, value, choices):
        """Refuses a setting that is none of the choices."""
        if value not in choices:
            problem = f"{self.name}: {setting} is {value!r}"
            raise ValueError(f"{problem}; it is one of {list(choices)}")

    def files(self, names):
        """The paths of list files; one ValueError lists all that are missing."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            folder = os.path.abspath(self.root)
            raise ValueError(f"missing under {folder}: {', '.join(missing)}\n{self.about}")
        return [os.path.join(self.root, name) for name in names]

    def tables(self, files, columns=()):
        """The tables of list files; `columns` names those of files without a header line."""
        return [read_table(file, columns) for file in self.files(files)]

    def records(self, paths, targets, columns=None, split=""):
        """`image_records` of the paths in a list."""
        folder = self.images.replace("{split}", split)
        paths = [f"{folder}/{path}" if folder else path for path in paths]
        texts = {"name": f"{self.name} {split}".rstrip(), "about": self.about}
        return image_records(self.root, paths, targets, **texts, columns=columns)


def published(root, name, images="", table=""):
    """The DataSet `name` of data_sets.toml."""
    file = pathlib.Path(__file__).with_suffix(".toml")
    texts = tomllib.loads(file.read_text(encoding="utf-8"))[name]
    entry = {key: " ".join(text.split()) for key, text in texts.items()}
    layout = entry.pop("layout").replace("{images}/", f"{images}/" if images else "")
    layout = layout.replace("{table}", table or "<table>")
    about = " ".join(f"{key}: {text}." for key, text in entry.items())
    return DataSet(root, name, f"{about}\nlayout: {layout}", images)
