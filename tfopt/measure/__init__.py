"""Measuring: sizes (`cost`), times (`latency`), losses of operations (`sensitivity`)."""
