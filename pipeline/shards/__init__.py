"""How any job over shards runs and survives: workers, batches, driver loop, progress."""
