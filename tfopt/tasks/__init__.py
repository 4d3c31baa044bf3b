"""Tasks: what a model of texts is for, a module each; `all_tasks` finds them.

    task = tfopt.tasks.named("classification").from_corpus(corpus)
    model = tfopt.model.load("minilm", head=task.head())

No task imports TensorFlow before it trains: a server reads a model's answers by the
task, too.
"""

from tfopt.tasks.base import Task
from tfopt.tasks.registry import all_tasks, from_fields, named, read, save

__all__ = ["Task", "all_tasks", "from_fields", "named", "read", "save"]
