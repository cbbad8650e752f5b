"""CATER-like videos, drawn by an analytic ray caster, with captions, masks and object states."""
