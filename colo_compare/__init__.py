"""A COLO network proxy: compares two guests' output and lets out what both of them said."""

__version__ = "0.1.0"
