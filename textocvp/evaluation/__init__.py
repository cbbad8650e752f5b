"""Evaluation: how well slots separate objects, how well predicted frames agree with the true ones."""
