"""Everything about running: the Ray connection, tasks over shards, progress."""
