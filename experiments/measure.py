"""Measures any `.tflite` or Keras directory on any labelled file.

The command `tfopt measure`, called from a checkout; --help says all of it.
"""

from tfopt.cli.main import run

if __name__ == "__main__":
    run("measure")
