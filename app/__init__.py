"""selfspec: from a handful of seeds to an expert, served beside other experts on one base."""

__version__ = "0.1.0"
