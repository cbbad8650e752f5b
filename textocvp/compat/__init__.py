"""Reads what the original implementation of TextOCVP wrote."""
