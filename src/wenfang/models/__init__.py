"""Model families, one file each, and the bundle a trained model travels in. Knows nothing of where things are stored or served."""

import importlib

from wenfang.core.registry import Registry

from .base import Curve, DataShape, Model, Step

__all__ = ["Curve", "DataShape", "Model", "Step", "families"]

importlib.import_module("wenfang.models.families")  # binds the package to this name now: imported later it would take the place of the registry
families: Registry[Model] = Registry("family", package="wenfang.models.families", base=Model)
