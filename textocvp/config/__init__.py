"""Configuration: settings as pydantic models, registries, options of command lines. Runs without torch."""
