"""Runs the websocket tests of uvicorn and Starlette behind the guard: ``make transparency``."""
