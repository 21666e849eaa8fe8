"""The live page: what the daemon's HTTP server shows a person. Read-only, and made of its own files only."""

from colo_compare.page.live import LivePage

__all__ = ["LivePage"]
