"""The subcommands of main.py. Here, and only here, patchcore, datasets and utils meet."""
