"""Predictions of a finished run: in Python, and for files of images."""

from jaxord.predict.files import predict_run

__all__ = ["predict_run"]
