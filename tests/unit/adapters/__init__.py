"""The adapters: what each framework refuses by itself, and that with its adapter it goes down to the guard."""
