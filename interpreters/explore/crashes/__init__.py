"""Every crash of the disk under a workload, and of each restart after it."""
