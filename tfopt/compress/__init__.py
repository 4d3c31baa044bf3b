"""Compression: passes from Model to Model, and recipes of them."""

from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.recipe import (
    Recipe,
    check,
    check_layers,
    names_layers,
    run,
    teaches_states,
)
from tfopt.compress.registry import all_passes, from_fields
from tfopt.functional import copy_model

__all__ = ["Context", "Outcome", "Pass", "Recipe", "Stage", "all_passes", "check",
           "check_layers", "copy_model", "from_fields", "names_layers", "run",
           "teaches_states"]
