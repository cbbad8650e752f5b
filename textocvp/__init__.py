"""TextOCVP: object-centric, text-guided video prediction (Villar-Corrales, Plepi, Behnke 2025, arXiv 2502.11655)."""
