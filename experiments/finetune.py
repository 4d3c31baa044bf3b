"""Fine-tunes an encoder on a text task.

The command `tfopt finetune`, called from a checkout; --help says all of it.
"""

from tfopt.cli.main import run

if __name__ == "__main__":
    run("finetune")
