"""Adapters: one file per framework whose own object raises above `send`. None is shipped yet."""
