"""Prepares what a proxy without privileges stands on: taps, bridges, interfaces, network namespaces."""
