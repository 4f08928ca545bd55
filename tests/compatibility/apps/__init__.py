"""One application for each framework: its own WebSocket, by the calls that the scenarios make."""
