"""
JSON Web Tokens as an authenticator, through `joserfc` (extra ``auth``).

The list of algorithms and the keys are the caller's; the token's own header chooses among them and widens nothing (RFC
8725, sections 3.1 and 3.2). It fetches no key: that is the caller's callable.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ..._events import Identity
from ..._exceptions import ConfigurationError
from ..._plugin import Deny
from ._denials import wrong

KEY_TYPES = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), "oct"),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
"""dict: algorithm -> the type of its keys. ``none`` is not among them."""

_FAR_UNIX_S = 2.0**53
_KEY = "PEM, a JWK or a JWK set (dict), a key of joserfc, or a callable that gives one of these"


def jwt(
    key: object,
    *,
    algorithms: Sequence[str],
    issuer: str | None,
    audience: str | None,
    leeway_s: float = 0.0,
    subject_claim: str = "sub",
    require_exp: bool = True,
) -> Callable[[str], Awaitable[Identity | Deny]]:
    """
    Check JSON Web Tokens.

    Args:
        key: The secret of ``HS*`` (bytes as long as the hash, or longer), PEM, a JWK or a JWK set (dict), a key of
            joserfc, or a callable without arguments, sync or async, that gives one of these: it is called for each
            token, so keys may rotate. Of a set, the ``kid`` of the token chooses.
        algorithms: Those that are accepted, all for one type of key: ``("RS256",)``.
        issuer: What ``iss`` must be; None: anything.
        audience: What ``aud`` must be or contain; None: only tokens for no particular audience (RFC 7519, section
            4.1.3).
        leeway_s: Seconds by which clocks may differ; a token, and its connection, live so much longer than ``exp``
            says.
        subject_claim: The claim that becomes the subject, a string or an integer.
        require_exp: Whether a token without ``exp``, which is good for ever, is refused.

    Returns:
        An authenticator of `Auth`; ``exp`` becomes the end of the connection.

    Raises:
        ConfigurationError: An option is not allowed, or joserfc is not installed.
    """
    kind = _kind_of(algorithms)
    for name, text in (("issuer", issuer), ("audience", audience)):
        if text is not None and (not isinstance(text, str) or not text):
            raise ConfigurationError(name, text, "a string, not empty, or None")
    if isinstance(leeway_s, bool) or not isinstance(leeway_s, int | float) or not 0 <= leeway_s < math.inf:
        raise ConfigurationError("leeway_s", leeway_s, "a number of seconds, 0 or more")
    if not isinstance(subject_claim, str) or not subject_claim:
        raise ConfigurationError("subject_claim", subject_claim, "the name of a claim")
    try:
        import joserfc.jwt  # noqa: F401
    except ImportError as error:
        missing = f'the package joserfc, pip install "asgi-ws-guard[auth]" ({error})'
        raise ConfigurationError("key", "<hidden>", missing) from None
    keys = _Keys(key, kind, algorithms)
    wanted = {"iss": issuer, "aud": audience}
    options: dict[str, Any] = {
        name: {"essential": True, "value": value} for name, value in wanted.items() if value is not None
    }
    if require_exp:
        options["exp"] = {"essential": True}

    async def authenticate(token: str) -> Identity | Deny:
        found = keys.now()
        if inspect.isawaitable(found):
            found = keys.imported(await found)
        claims = _claims(token, found, list(algorithms), options, leeway_s)
        if isinstance(claims, Deny):
            return claims
        if audience is None and "aud" in claims:
            return wrong("claims")
        subject, expires = claims.get(subject_claim), claims.get("exp")
        if isinstance(subject, bool) or not isinstance(subject, str | int) or subject == "":
            return wrong("no_subject")
        return Identity(subject, None if expires is None else expires + leeway_s)

    return authenticate


def _claims(
    token: str, key: Any, algorithms: list[str], options: dict[str, Any], leeway_s: float
) -> dict[str, Any] | Deny:
    """Check signature and claims; a token of five parts is encrypted, and no such is accepted."""
    from joserfc import errors
    from joserfc.jwt import JWTClaimsRegistry, decode

    dots = token.count(".")
    if dots != 2 or token.endswith("."):
        return wrong("truncated" if dots < 3 else "malformed")
    try:
        claims = decode(token, key, algorithms=algorithms).claims
        if not _is_time(claims.get("exp")):
            return wrong("claims")
        JWTClaimsRegistry(leeway=leeway_s, **options).validate(claims)  # type: ignore[arg-type]
    except errors.ExpiredTokenError:
        return wrong("expired")
    except errors.InvalidClaimError as error:
        return wrong("not_yet" if error.claim in ("nbf", "iat") else "claims")
    except errors.ClaimError:
        return wrong("claims")
    except (errors.DecodeError, errors.InvalidPayloadError, errors.MissingAlgorithmError):
        return wrong("malformed")
    except errors.ExceededSizeError:
        return wrong("too_long")
    except errors.JoseError:
        return wrong("bad_signature")
    except Exception:  # noqa: BLE001 - whatever a parser does with a stranger's bytes; the keys were checked before
        return wrong("malformed")
    return claims


def _is_time(exp: object) -> bool:
    """Tell whether ``exp`` is a number or missing: with joserfc 1.7 True and NaN, which never expires, pass for one."""
    return exp is None or (not isinstance(exp, bool) and isinstance(exp, int | float) and abs(exp) < _FAR_UNIX_S)


class _Keys:
    """The keys of one authenticator, imported again when what the callable gives has changed, be it in place."""

    def __init__(self, key: object, kind: str, algorithms: Sequence[str]) -> None:
        self._kind = kind
        self._least_bytes = max((int(one[2:]) // 8 for one in algorithms if kind == "oct"), default=0)
        self._last: tuple[object, Any] = (None, None)
        self._give: Callable[[], Any] | None = None
        if callable(key):
            self._give = key
        else:
            self.imported(key)

    def now(self) -> Any:
        """Give the keys of this moment, or an awaitable of what `imported` is to be given."""
        if self._give is None:
            return self._last[1]
        given = self._give()
        return given if inspect.isawaitable(given) else self.imported(given)

    def imported(self, given: object) -> Any:
        """
        Make keys of joserfc.

        Raises:
            ConfigurationError: They are none, or not of the algorithms' type.
        """
        before, keys = self._last
        if keys is None or type(before) is not type(given) or before != given:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a weak secret is an error below
                keys = self._import(given)
            self._check(keys)
            self._last = (copy.deepcopy(given) if isinstance(given, Mapping | str | bytes) else None, keys)
        return keys

    def _import(self, given: object) -> Any:
        from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

        kinds: dict[str, Any] = {"oct": OctKey, "RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
        if isinstance(given, KeySet | OctKey | RSAKey | ECKey | OKPKey):
            return given
        try:
            if isinstance(given, Mapping):
                if "keys" in given:
                    return KeySet.import_key_set({"keys": list(given["keys"])})
                return kinds[str(given.get("kty"))].import_key(dict(given))
            if isinstance(given, str | bytes) and given:
                return kinds[self._kind].import_key(given)
        except Exception:  # noqa: BLE001 - whatever a parser does; its text may hold the key
            raise ConfigurationError("key", "<hidden>", f"for {self._kind}: {_KEY}") from None
        raise ConfigurationError("key", f"<{type(given).__name__}>", f"for {self._kind}: {_KEY}")

    def _check(self, keys: Any) -> None:
        found = list(getattr(keys, "keys", None) or [keys]) if type(keys).__name__ == "KeySet" else [keys]
        right = [one for one in found if one.key_type == self._kind]
        if not right:
            shown = ", ".join(sorted({str(one.key_type) for one in found}))
            raise ConfigurationError("key", f"<{shown}>", f"a key of type {self._kind}, as the algorithms need")
        if any(len(one.raw_value) < self._least_bytes for one in right if self._kind == "oct"):
            allowed = f"at least {self._least_bytes} bytes (RFC 7518, section 3.2)"
            raise ConfigurationError("key", "<a short secret>", allowed)


def _kind_of(algorithms: object) -> str:
    """Give the one type of key that all algorithms need: two of them would let a public key pass for a secret."""
    if isinstance(algorithms, str) or not isinstance(algorithms, list | tuple) or not algorithms:
        raise ConfigurationError("algorithms", algorithms, f"a list of some of {', '.join(KEY_TYPES)}")
    for one in algorithms:
        if one not in KEY_TYPES:
            raise ConfigurationError("algorithms", one, f"some of {', '.join(KEY_TYPES)}")
    kinds = {KEY_TYPES[one] for one in algorithms}
    if len(kinds) > 1:
        raise ConfigurationError("algorithms", algorithms, "algorithms for one type of key")
    return kinds.pop()
