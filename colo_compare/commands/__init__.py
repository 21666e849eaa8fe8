"""The commands: each module is one of them. Larger ones (replay, simulate, demo) are packages of their own.

A module has `add_arguments(parser)` and `run(args)`, which gives the exit code. It is imported when its
command is used.
"""
