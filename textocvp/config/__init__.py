"""Configuration: sections as frozen dataclasses, default values, registries. Standard library only."""
