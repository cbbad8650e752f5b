"""How Slurm is reached: plain values in (argv, resources, dependencies), job ids and states out."""
