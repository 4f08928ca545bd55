"""The model: whole guarded connections under a scheduler that a seed decides, and the contract as its invariants."""
