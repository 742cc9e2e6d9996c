"""Model families, one file each, and the bundle a trained model travels in. Knows nothing of where things are stored or served."""

from wenfang.core.registry import Registry

from .base import Curve, DataShape, Model, Step

__all__ = ["Curve", "DataShape", "Model", "Step", "families"]

families: Registry[Model] = Registry("family", package="wenfang.models.families", base=Model)
