"""What runs, in which order, and where each task is: plans, submits and watches."""

from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
"""The folder that holds launch, slurm and textocvp."""
