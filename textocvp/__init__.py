"""TextOCVP: object-centric, text-guided video prediction (Villar-Corrales et al. 2025, arXiv 2502.11655)."""
