"""Measuring: sizes (`cost`), times (`latency`), accuracy (`quality`)."""
