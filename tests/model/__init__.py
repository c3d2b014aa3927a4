"""The tier with real weights: marker ``model``."""
