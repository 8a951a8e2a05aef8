"""Your own data: a folder with a sub-folder per rank, or a table of path, label and split.

    python -m jaxord.main --config=configs/folder.py --config.data.root=my/    # my/0/a.jpg
    python -m jaxord.main --config=configs/folder.py --config.data.root=my/ \\
        --config.data.table=my.csv

The ranks are the distinct labels of the training split, or ten equal bins if there are more than
128. --config.ranks.labels='(1.,2.,3.)', --config.ranks.edges='(0.,10.,20.)' and
--config.ranks.names="('bad','fair','good')" give others. Without a split column the rows are split
70/10/20 (data.reader.fractions), stratified by label, by the config's seed. docs/own_data.md has
the order of folders with names, the kinds of tables and the settings of their columns.
backbone=tiny starts a small model from scratch, others from pretrained weights.
"""

from configs.base import entry, finish, start


def get_config(argument=""):
    c, options = start("folder", argument, method="ce_l1")
    columns = {"path_column": "path", "label_column": "label", "split_column": "split"}
    columns |= {"images": "", "suffix": ""}
    shares = {"fractions": (0.7, 0.1, 0.2), "val_fraction": 0.0}
    c.data.reader = entry(name="sources.own", **columns, **shares)
    c.data.root = "data/folder"
    if c.model.variant == "tiny":
        c.data.image_size, c.data.stored_size = 32, 40
    return finish(c, options)
