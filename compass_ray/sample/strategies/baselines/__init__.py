"""What a selection has to beat: strategies that know nothing of gaps."""
