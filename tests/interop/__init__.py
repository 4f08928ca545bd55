"""Real servers, real clients, loopback: one test per row of the server table."""
