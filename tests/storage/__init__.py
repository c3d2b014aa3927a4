"""Tests of what outlives the process, on real files and real databases."""
