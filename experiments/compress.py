"""The whole road: fine-tune, compress by a recipe, export, measure, report.

The command `tfopt compress`, called from a checkout; --help says all of it.
"""

from tfopt.cli.main import run

if __name__ == "__main__":
    run("compress")
