"""
The command line `asgi-ws-guard`.

Needs the extra `cli`. Nothing here is public API; only `asgi_ws_guard.__main__` imports it.
"""
