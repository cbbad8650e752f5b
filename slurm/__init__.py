"""How a scheduler is reached: the only importer of submitit, and the same jobs without a scheduler."""
