"""Decisions: frames and times in, actions out. No trio, no clock, no sockets."""
