"""Distillation: what a student learns from a teacher, and the model that trains so."""
