"""
What telemetry says of a connection and of a message: attributes, without query strings, cookies and credentials.

Pure: events in, attributes out. It knows neither spans, instruments nor log records; the steps in between are named in
`steps.py`.
"""

from __future__ import annotations

from typing import Any

from ..._close import CloseStatus, Initiator
from ..._events import (
    Abandoned,
    Books,
    Closed,
    Ended,
    HandlerOutlived,
    Handshake,
    Identified,
    MessageHandled,
    MessageLost,
    MessageSent,
    Rejected,
    Terminal,
)
from . import attributes as names

Values = dict[str, Any]


def request(connection_id: str, handshake: Handshake) -> Values:
    """
    Describe the opening handshake, by the HTTP conventions.

    Args:
        connection_id: The connection.
        handshake: What the client asked for.

    Returns:
        dict: attribute -> value.
    """
    values: Values = {
        names.CONNECTION_ID: connection_id,
        names.HTTP_METHOD: "GET",
        names.URL_SCHEME: handshake.scheme,
        names.URL_PATH: names.safe(handshake.path),
        names.PROTOCOL_NAME: "http",
        names.PROTOCOL_VERSION: handshake.http_version,
    }
    values |= _address(handshake.client, names.CLIENT_ADDRESS, names.CLIENT_PORT)
    values |= _address(handshake.server, names.SERVER_ADDRESS, names.SERVER_PORT)
    agent = next((value for name, value in handshake.headers if name.lower() == b"user-agent"), None)
    if agent is not None:
        values[names.USER_AGENT] = names.safe(agent.decode("latin-1"))
    return values


def route(template: str | None) -> Values:
    """
    Describe the route.

    Args:
        template: Route template, None when none is known.

    Returns:
        dict: `names.HTTP_ROUTE` alone, or nothing.
    """
    return {} if template is None else {names.HTTP_ROUTE: names.safe(template)}


def identity(event: Identified) -> Values:
    """
    Describe who is behind a connection.

    Args:
        event: Tells of it.

    Returns:
        dict: `names.ENDUSER` alone.
    """
    return {names.ENDUSER: names.safe(event.label)}


def end(event: Ended | HandlerOutlived | Terminal) -> Values:
    """
    Describe the end of a connection.

    Args:
        event: Any event that tells of it.

    Returns:
        dict: attribute -> value; code and reason only when there are any.
    """
    values = _end(event.initiator, event.status, event.code, event.reason)
    if isinstance(event, (HandlerOutlived, Closed)):
        values |= {names.HANDLER_LINGERED: event.lingered_s, **_books(event.books)}
    if isinstance(event, HandlerOutlived):
        values[names.HANDLER_RUNNING] = True
    elif isinstance(event, Terminal) and event.absorbed_type is not None:
        values[names.ABSORBED_TYPE] = event.absorbed_type
    return values


def answer(event: Abandoned | Rejected | HandlerOutlived) -> Values:
    """
    Describe how a handshake ended that was not accepted.

    Args:
        event: The event that tells of it.

    Returns:
        dict: result, and the HTTP status when it is known.
    """
    if isinstance(event, Rejected):
        values: Values = {names.CONNECTION_RESULT: names.DENIED}
        if event.response_status is not None:
            values[names.HTTP_STATUS] = event.response_status
        return values
    left = isinstance(event, Abandoned) or event.initiator in (Initiator.CLIENT, Initiator.TRANSPORT)
    return {names.CONNECTION_RESULT: names.ABORTED if left else names.DENIED}


def error(event: HandlerOutlived | Terminal) -> str | None:
    """
    Give the value of `names.ERROR_TYPE`.

    Args:
        event: How the connection ended.

    Returns:
        The qualified name of the error that left the handler; the HTTP status of a denial from 500 on; the class of the
        end, when it is one of `names.ERROR_STATUSES`; else None. A handler that was cancelled made no error: servers do
        that when they stop, and daphne 4.2 some time after a disconnect.
    """
    if isinstance(event, Terminal) and event.error_type is not None and event.error_type not in names.CANCELLATIONS:
        return event.error_type
    if isinstance(event, Rejected):
        status = event.response_status
        return str(status) if status is not None and status >= 500 else None
    return str(event.status) if event.status in names.ERROR_STATUSES else None


def message(event: MessageSent | MessageLost | MessageHandled) -> Values:
    """
    Describe one message, never its payload.

    Args:
        event: What became of it.

    Returns:
        dict: attribute -> value.
    """
    values: Values = {
        names.CONNECTION_ID: event.connection_id,
        names.IO_DIRECTION: names.RECEIVE if isinstance(event, MessageHandled) else names.TRANSMIT,
        names.MESSAGE_TYPE: event.kind,
        names.MESSAGE_SIZE: event.size,
    }
    if isinstance(event, MessageSent):
        values[names.SEND_RESULT] = "forwarded"
    elif isinstance(event, MessageLost):
        values[names.SEND_RESULT] = "failed" if event.reason is None else "dropped"
        if event.reason is not None:
            values[names.SEND_REASON] = str(event.reason)
        if event.error_type is not None:
            values[names.ERROR_TYPE] = event.error_type
    return values


def _address(address: tuple[str, int | None] | None, name: str, port_name: str) -> Values:
    """Describe one side; servers give None for a port that there is not, as behind a unix socket."""
    if address is None or address[0] is None:
        return {}
    values: Values = {name: names.safe(str(address[0]))}
    return values if address[1] is None else {**values, port_name: address[1]}


def _end(initiator: Initiator, status: CloseStatus, code: int | None, reason: str) -> Values:
    values: Values = {names.CLOSE_INITIATOR: str(initiator), names.CONNECTION_STATUS: str(status)}
    if code is not None:
        values[names.CLOSE_CODE] = code
    if reason:
        values[names.CLOSE_REASON] = names.safe(reason)
    return values


def _books(books: Books) -> Values:
    values: Values = {
        names.MESSAGES_RECEIVED: books.received,
        names.MESSAGES_SENT: books.sent,
        names.SENDS_PREFIX + "forwarded": books.forwarded,
        names.SENDS_PREFIX + "dropped": books.dropped_total,
        names.SENDS_PREFIX + "failed": books.failed,
        names.SENDS_PREFIX + "refused": books.refused,
        **{names.DROPPED_PREFIX + reason: number for reason, number in books.dropped.items()},
    }
    if books.received_bytes or books.sent_bytes:
        values |= {names.IO_RECEIVED: books.received_bytes, names.IO_SENT: books.sent_bytes}
    return values
