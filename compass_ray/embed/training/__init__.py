"""How the bundled encoder is made: parallel texts -> a static embedding model of a few megabytes."""
