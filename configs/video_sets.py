"""What sets of rated videos share: frames as views, motion for the methods that use it, ranks from
mean opinion scores."""

from configs.base import entry
from configs.quality_sets import FOLDS, rated


def filmed(c, folds=FOLDS):
    """Sets the data, ranks and metrics of a set of rated videos.

    Eight frames a video, the shorter side resized to what the model sees, as ModularBVQA does; no
    public split but LSVQ's, so ten of 80/20 are drawn. Frames are extracted once, and so is motion
    where the method reads it (ConOrd's fusion). What is stored follows config.data;
    `data.resize=square` takes a quarter of the disk and stretches the frames.
    """
    rated(c, folds)
    c.select = "last"
    c.data.stored_size = c.data.image_size
    c.data.batch, c.data.eval_batch = 16, 16
    extract = {
        name: c.data.get_ref(name)
        for name in ("resize", "stored_size", "cache", "broken", "broken_share", "workers")
    }
    extract |= {
        "frames": 8,
        "clips": 8 if c.method == "conord" else 0,
        "clip_frames": 32,
        "clip_size": 224,
    }
    extract["motion_weights"] = ""
    c.data.reader = entry(name=f"videos.{c.name}", extract=extract)
