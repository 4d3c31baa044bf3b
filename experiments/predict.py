"""Answers texts, a JSON object a line.

The command `tfopt predict`, called from a checkout; --help says all of it.
"""

from tfopt.cli.main import run

if __name__ == "__main__":
    run("predict")
