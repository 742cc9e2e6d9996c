"""The ways to write an interface down: one file, one format, found by its file name. Equal interfaces give equal bytes."""

from wenfang.core.registry import Registry

from .base import Spec

__all__ = ["Spec", "specs"]

specs: Registry[Spec] = Registry("spec", package="wenfang.serve.specs", base=Spec)
