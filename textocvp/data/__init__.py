"""Data sets on disk, the stores made from them, and the batches that training and evaluation read."""
