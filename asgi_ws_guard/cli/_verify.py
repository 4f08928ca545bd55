"""
`asgi-ws-guard verify` against one address: all probes in turn, and after each whether all is as before.

Bounded: a probe may take `PROBE_TIMEOUTS` times the timeout (and `half_open_s`), the checks after it about six times
when nothing answers, the last look `Settings.afterwards_s`; at no time are more connections open than
`Settings.connections` and a few. Imported by `_verify_command.py` and `_verify_servers.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._address import Address, VerifyError
from ._checks import Check, Result, Run, failed, held, note, unchecked
from ._health_reader import HealthReader, Reading, guess
from ._opening import PeerError, RefusedError
from ._probes import PROBES, Probe
from ._service import Service, Settings

PROBE_TIMEOUTS = 6
POLL_S = 0.05
AFTERWARDS = "afterwards"
UNCHECKED = "could not be checked without health: that no connection is left, zombies, drops, the verdict"
_HINTS = {
    401: "; --header 'Authorization: ...' or 'Cookie: ...'",
    403: "; --origin, --header 'Cookie: ...'; a server also answers so where the application has no such path",
    404: "; is the path right?",
}
_CAUSED_BY_PROBES = {"abnormal_ends"}  # resets are abnormal, and we are the ones who reset


@dataclass(frozen=True)
class Begin:
    """
    Where to begin.

    Attributes:
        address: Of the service.
        health: Where its health is read; None: nowhere.
        must_have_health: Whether it is an error that there is none.
        start_s: How long the first opening handshake may take, in seconds; None: as any other.
        met: Called when the service has answered it, before the first probe.
    """

    address: Address
    health: HealthReader | None
    must_have_health: bool = False
    start_s: float | None = None
    met: Callable[[], None] = lambda: None


def begin_at(address: Address, health_url: str | None, timeout_s: float) -> Begin:
    """
    Begin at an address of somebody else's service.

    Args:
        address: Of the service.
        health_url: Of its health; None: look where the guard puts it usually.
        timeout_s: For each reading of it, in seconds.

    Raises:
        VerifyError: *health_url* is no address.
    """
    if health_url is None:
        return Begin(address, guess(address, timeout_s))
    return Begin(address, HealthReader(health_url, timeout_s), must_have_health=True)


def chosen(names: Sequence[str]) -> dict[str, Probe]:
    """
    Choose probes; they keep their order.

    Args:
        names: Of them; empty: all.

    Raises:
        VerifyError: There is none of a name.
    """
    if unknown := [name for name in names if name not in PROBES]:
        raise VerifyError(f"--probe {unknown[0]!r} is not known: expected {', '.join(PROBES)}")
    return {name: probe for name, probe in PROBES.items() if not names or name in names}


def steps(settings: Settings) -> int:
    """Tell how often `verify` advances."""
    return len(chosen(settings.probes)) + 1


async def verify(begin: Begin, settings: Settings, advance: Callable[[str], None] = lambda probe: None) -> Run:
    """
    Run all probes.

    Args:
        begin: Where.
        settings: How hard to try.
        advance: Called with the name of each probe when it is done, `steps` times.

    Raises:
        VerifyError: There is no service to probe, or no health where there should be.
    """
    service = Service(begin.address, settings)
    first = await _read(begin.health)
    if begin.must_have_health and begin.health is not None and first is None:
        raise VerifyError(f"{begin.health.shown} gives no health: expected what asgi_ws_guard's health_path answers")
    try:
        await service.meet(settings.timeout_s if begin.start_s is None else begin.start_s)
    except RefusedError as error:
        hint = "; redirects are not followed" if 300 <= error.status < 400 else _HINTS.get(error.status, "")
        raise VerifyError(f"{begin.address.shown}: {error}{hint}") from None
    except PeerError as error:
        raise VerifyError(f"{begin.address.shown}: {error}") from None
    begin.met()
    health = begin.health if first is not None else None
    results: list[Result] = []
    is_served = True
    for name, probe in chosen(settings.probes).items():
        if is_served:
            result, is_served = await _run(name, probe, service, health)
            results.append(result)
        else:
            results.append(Result(name, (unchecked("not run: the service serves nobody any more"),)))
        advance(name)
    results.append(await _look_afterwards(service, health, first))
    advance(AFTERWARDS)
    return Run(None if health is None else health.shown, tuple(results))


async def _run(name: str, probe: Probe, service: Service, health: HealthReader | None) -> tuple[Result, bool]:
    """Run one probe, and look after it; tell also whether an ordinary client is still served."""
    began_s = time.monotonic()
    settings = service.settings
    limit_s = PROBE_TIMEOUTS * settings.timeout_s + (settings.half_open_s or 0.0)
    before = await _read(health)
    known = service.handshakes
    try:
        checks = await asyncio.wait_for(probe(service), limit_s)
    except asyncio.TimeoutError:
        checks = [failed(f"the probe was not through after {limit_s:g} s")]
    except PeerError as error:
        checks = [failed(str(error))]
    is_served = True
    try:
        took_s = await service.serve()
        checks.append(held(f"afterwards another connection is served within {took_s * 1000:.0f} ms"))
    except PeerError as error:
        is_served = False
        checks.append(failed(f"afterwards nobody is served: {error}"))
    if health is not None and before is not None:
        checks += await _compare(service, health, before, known)
    elif health is not None:
        checks.append(failed(f"the health endpoint {health.shown} does not answer"))
    return Result(name, tuple(checks), time.monotonic() - began_s), is_served


async def _compare(service: Service, health: HealthReader, before: Reading, known: int) -> list[Check]:
    """Compare the health with what it was, once all connections of the probe are gone or the time is over."""
    timeout_s = service.settings.timeout_s
    deadline = time.monotonic() + timeout_s
    while True:
        now = await _read(health)
        if now is None:
            return [failed(f"the health endpoint {health.shown} does not answer any more")]
        left = _left(service.handshakes - known, before, now)
        if left <= 0 or time.monotonic() >= deadline:
            break
        await asyncio.sleep(POLL_S)
    checks = [_judge_left(left, now, timeout_s)]
    if now.lingering > before.lingering:
        checks.append(note(f"{now.lingering - before.lingering} handlers still run though their connection has ended"))
    if now.zombies > before.zombies:
        checks.append(failed(f"{now.zombies - before.zombies} new zombies: handlers that outlive their connection"))
    return [*checks, *_judge_verdict(before, now), *_tell_difference(before, now)]


def _left(ours: int, before: Reading, now: Reading) -> int:
    """Count the connections that only we can have left: anybody else who came since may still be there."""
    others = max(0, now.opened - before.opened - ours)
    return now.live - before.live - others


def _judge_left(left: int, now: Reading, timeout_s: float) -> Check:
    if left > 0:
        return failed(f"{left} connections more than before are still live after {timeout_s:g} s")
    return held(f"no connection is left ({now.live} live)")


def _judge_verdict(before: Reading, now: Reading) -> list[Check]:
    if now.status != "failing" or before.status == "failing":
        return []
    reasons = ", ".join(now.failing)
    if set(now.failing) <= _CAUSED_BY_PROBES:
        return [note(f"the verdict is failing ({reasons}), because of the ends that these probes make")]
    return [failed(f"the verdict has become failing: {reasons}")]


def _tell_difference(before: Reading, now: Reading) -> list[Check]:
    """Say which ends and drops the probe has caused."""
    told = []
    for what, old, new in (("ends", before.ends, now.ends), ("late sends dropped", before.dropped, now.dropped)):
        grown = {word: count - old.get(word, 0) for word, count in new.items() if count > old.get(word, 0)}
        if grown:
            told.append(f"{what}: " + ", ".join(f"{word} {count}" for word, count in sorted(grown.items())))
    return [note("; ".join(told))] if told else []


async def _look_afterwards(service: Service, health: HealthReader | None, first: Reading | None) -> Result:
    """Wait until no connection is left, and no handler that has outlived its own."""
    began_s = time.monotonic()
    if health is None or first is None:
        return Result(AFTERWARDS, (unchecked(UNCHECKED),))
    while True:
        now = await _read(health)
        took_s = time.monotonic() - began_s
        if now is None:
            check = failed(f"the health endpoint {health.shown} does not answer any more")
            break
        live, handlers = _left(service.handshakes, first, now), max(0, now.lingering - first.lingering)
        if live <= 0 and not handlers:
            check = held(f"no connection is left, and no handler without one (after {took_s:.1f} s)")
            break
        if took_s >= service.settings.afterwards_s:
            zombies = max(0, now.zombies - first.zombies)
            check = failed(
                f"after {service.settings.afterwards_s:g} s {max(0, live)} connections are left, "
                f"and {handlers} handlers without one ({zombies} zombies)"
            )
            break
        await asyncio.sleep(POLL_S)
    return Result(AFTERWARDS, (check,), took_s)


async def _read(health: HealthReader | None) -> Reading | None:
    return None if health is None else await asyncio.to_thread(health.read)
