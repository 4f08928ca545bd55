"""The probe application inside the guard; ``PROBE_GUARD_OPTIONS`` holds its options as JSON."""

from __future__ import annotations

import json
import os

from asgi_ws_guard import WebSocketGuardMiddleware

from .probe import app

OPTIONS_VARIABLE = "PROBE_GUARD_OPTIONS"

guarded = WebSocketGuardMiddleware(app, **json.loads(os.environ.get(OPTIONS_VARIABLE, "{}")))
