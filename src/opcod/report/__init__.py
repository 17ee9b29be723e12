"""What a reader sees of runs: figures from a grid's CSV files."""
