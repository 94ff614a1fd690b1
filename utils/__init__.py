"""What a run needs around the method: flags, metrics, plots, tables, results, timing."""
