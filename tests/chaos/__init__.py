"""Seeded random clients against real servers, and what must be left of them afterwards: nothing."""
