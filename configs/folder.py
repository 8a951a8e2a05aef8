"""Your own data: a folder with one sub-folder per rank, or a CSV file of path,label[,split]. No
code.

    python -m jaxord.main --config=configs/folder.py --config.data.root=my/                            # my/0/a.jpg, my/1/b.jpg
    python -m jaxord.main --config=configs/folder.py --config.data.root=my/
    --config.data.table=my.csv

The ranks are the distinct labels of the training split, or ten equal bins where there are more than
128; or give them: --config.ranks.labels='(1.,2.,3.)', --config.ranks.edges='(0.,10.,20.)',
--config.ranks.names="('bad','fair','good')". Without a split column the rows are split 70/10/20
(data.reader.fractions), stratified by label, with the config's seed. The columns' names are
settings too. backbone=tiny starts a small model from scratch, every other one from its pretrained
weights.
"""

from ml_collections import ConfigDict

from configs.base import finish, start


def get_config(argument=""):
    c, options = start("folder", argument, method="ce_l1")
    columns = {"path_column": "path", "label_column": "label", "split_column": "split"}
    shares = {"fractions": (0.7, 0.1, 0.2), "val_fraction": 0.0}
    c.data.reader = ConfigDict({"name": "sources.own", **columns, **shares}, type_safe=False)
    c.data.root = "data/folder"
    if c.model.variant == "tiny":
        c.data.image_size, c.data.stored_size = 32, 40
    return finish(c, options)
