"""Measuring: sizes (`cost`), times (`latency`), losses by operation (`sensitivity`)."""
