"""Data sets on disk, the stores made from them, and the batches that training and evaluation read."""

import os

os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # network file systems; h5py reads it on import
