"""The `beleg` command: mounts each package's cli.py lazily, and knows nothing else."""
