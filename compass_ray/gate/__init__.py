"""The gate: whether a candidate adapter may replace the champion, by how well both predict the same documents."""
