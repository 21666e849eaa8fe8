"""Hypothesis, the same for every test: the same examples on every run, and no deadline.

A deadline would make a busy machine fail tests. tests/fuzz/ looks for new examples.
"""

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("deterministic")
