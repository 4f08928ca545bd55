"""Observers and policies: one per file, each usable alone, none knowing another."""
