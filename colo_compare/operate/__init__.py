"""What a running proxy keeps and does for its operator: history, divergences, captures, control methods."""
