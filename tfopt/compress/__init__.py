"""Compression: passes from Model to Model, and recipes of them."""

from tfopt.compress.base import Context, Outcome, Pass, Stage, copy_model
from tfopt.compress.recipe import Recipe, check, run
from tfopt.compress.registry import all_passes, from_fields

__all__ = ["Context", "Outcome", "Pass", "Recipe", "Stage", "all_passes", "check",
           "copy_model", "from_fields", "run"]
