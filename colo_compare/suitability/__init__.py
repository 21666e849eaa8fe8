"""Does a workload suit COLO? The facts, from a loop in mode observe or from captures, and the verdict."""
