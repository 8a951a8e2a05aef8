"""Ordinal regression with vision-language models in JAX and Flax.

jaxord.Predictor.load("runs/hci-numclip")(["a.jpg"]).value
jaxord.OrdinalRegressor(method="l1", steps=500).fit(images, labels)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxord.estimator import OrdinalRegressor as OrdinalRegressor
    from jaxord.predict.predictor import Prediction as Prediction
    from jaxord.predict.predictor import Predictor as Predictor

__version__ = "0.1.0"

_HOMES = {
    "Prediction": "predict.predictor",
    "Predictor": "predict.predictor",
    "OrdinalRegressor": "estimator",
}


def __getattr__(name):
    """Public names are imported when they are first asked for: `import jaxord` alone needs no jax
    (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxord' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"jaxord.{_HOMES[name]}"), name)
    return value


def __dir__():
    return sorted([*globals(), *_HOMES])
