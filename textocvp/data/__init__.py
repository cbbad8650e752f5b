"""Data sets on disk, the stores made from them, and the batches that training and evaluation read."""

import os

os.environ.setdefault(
    "HDF5_USE_FILE_LOCKING", "FALSE"
)  # network file systems; HDF5 reads it when h5py is imported
