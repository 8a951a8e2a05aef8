"""Ordinal regression with vision-language models in JAX and Flax.

jaxord.Predictor.load("runs/hci-numclip")(["a.jpg"]).value
jaxord.OrdinalRegressor(method="l1", steps=500).fit(images, labels)
jaxord.load_config("hci:method=coop")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxord.estimator import OrdinalRegressor as OrdinalRegressor
    from jaxord.predict.predictor import Prediction as Prediction
    from jaxord.predict.predictor import Predictor as Predictor
    from jaxord.workdir.run_config import load_config as load_config

__version__ = "0.1.0"

_HOMES = {
    "Prediction": "predict.predictor",
    "Predictor": "predict.predictor",
    "OrdinalRegressor": "estimator",
    "load_config": "workdir.run_config",
}


def __getattr__(name):
    """Imports a public name when it is first used, so that `import jaxord` needs no jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxord' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"jaxord.{_HOMES[name]}"), name)
    return value


def __dir__():
    return sorted([*globals(), *_HOMES])
