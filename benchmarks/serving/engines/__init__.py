"""One file for each engine that can be measured; none knows of another."""
