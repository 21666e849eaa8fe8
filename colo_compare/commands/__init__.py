"""The commands that talk to a running proxy, or look after one: each module is one of them.

A module has `add_arguments(parser)` and `run(args)`, which gives the exit code. It is imported when its
command is used.
"""
