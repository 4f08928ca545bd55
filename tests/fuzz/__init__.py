"""Fuzzing of all that takes foreign input; what was found stays as a plain test."""
