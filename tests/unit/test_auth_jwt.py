"""JSON Web Tokens: what their header says widens nothing, and every fault is a denial with its reason."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import warnings
from typing import Any

import pytest
from handshakes import handshake
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe, jws
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from asgi_ws_guard import Allow, ConfigurationError, Deny, Identity
from asgi_ws_guard.plugins.auth import REASONS, Auth, bearer_header, jwt

SECRET = b"s3cr3t-" + b"k" * 30
RSA = RSAKey.generate_key(2048, {"kid": "r1"}, private=True)
RSA_PUBLIC = RSA.as_pem(private=False)
EC = ECKey.generate_key("P-256", {"kid": "e1"}, private=True)
ED = OKPKey.generate_key("Ed25519", private=True)
OTHER = RSAKey.generate_key(2048, {"kid": "r2"}, private=True)
ANYBODY: dict[str, Any] = {"issuer": None, "audience": None}
STRICT: dict[str, Any] = {"algorithms": ["HS256"], "issuer": "https://id.example", "audience": "chat"}


def claims(**more: Any) -> dict[str, Any]:
    """Make the claims of a good token; those that are None are left out."""
    found = {"iss": "https://id.example", "aud": "chat", "sub": "ann", "exp": int(time.time()) + 600} | more
    return {name: value for name, value in found.items() if value is not None}


def mint(key: Any = SECRET, algorithm: str = "HS256", header: dict[str, Any] | None = None, **more: Any) -> str:
    """Sign a token."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = OctKey.import_key(key) if isinstance(key, bytes) else key
        return joserfc_jwt.encode({"alg": algorithm, **(header or {})}, claims(**more), key, algorithms=[algorithm])


def take(authenticate: Any, token: str) -> Identity | str:
    """Give the identity, or the reason of the denial."""
    answer = asyncio.run(authenticate(token))
    if isinstance(answer, Identity):
        return answer
    assert answer.reason in REASONS
    assert answer.status == 401
    assert len(token) < 40 or token not in repr(answer)
    return str(answer.reason)


def test_a_token_gives_subject_and_end() -> None:
    """``sub`` and ``exp``; another claim may be the subject."""
    end = int(time.time()) + 600
    assert take(jwt(SECRET, **STRICT), mint(exp=end)) == Identity("ann", end)
    assert take(jwt(SECRET, **STRICT), mint(exp=end, aud=["x", "chat"])) == Identity("ann", end)
    assert take(jwt(SECRET, subject_claim="uid", **STRICT), mint(exp=end, uid=7)) == Identity(7, end)


def test_a_token_goes_through_the_policy() -> None:
    """The identity is on the answer, with a label; a bad one is 401."""
    policy = Auth(jwt(SECRET, **STRICT), source=bearer_header())
    answer = asyncio.run(policy.admit(handshake((b"authorization", f"Bearer {mint()}".encode()))))
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert answer.identity.subject == "ann"
    assert len(answer.identity.label) == 16
    answer = asyncio.run(policy.admit(handshake((b"authorization", f"Bearer {mint(exp=1)}".encode()))))
    assert isinstance(answer, Deny)
    assert answer.reason == "expired"


@pytest.mark.parametrize(
    ("key", "public", "algorithm"),
    [
        (RSA, RSA_PUBLIC, "RS256"),
        (RSA, RSA.as_dict(private=False), "PS256"),
        (EC, EC.as_pem(private=False), "ES256"),
        (ED, ED.as_dict(private=False), "Ed25519"),
        (RSA, {"keys": [OTHER.as_dict(private=False), RSA.as_dict(private=False)]}, "RS256"),
        (RSA, KeySet([EC, OTHER, RSA]), "RS256"),
        (RSA, RSA, "RS256"),
    ],
    ids=["rsa-pem", "rsa-dict", "ec-pem", "ed-dict", "set-dict", "set", "key"],  # no key of a run: xdist compares them
)
def test_public_keys_come_in_many_forms(key: Any, public: Any, algorithm: str) -> None:
    """PEM, JWK, JWK set, a key of joserfc."""
    take_it = jwt(public, algorithms=[algorithm], issuer=None, audience="chat")
    token = mint(key, algorithm, {"kid": key.kid} if key.kid else None)
    assert isinstance(take(take_it, token), Identity)
    other = {"RSA": OTHER, "EC": ECKey.generate_key("P-256"), "OKP": OKPKey.generate_key("Ed25519")}[key.key_type]
    assert take(take_it, mint(other, algorithm, {"kid": key.kid} if key.kid else None)) == "bad_signature"


NOW = int(time.time())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"exp": NOW - 1}, "expired"),
        ({"exp": None}, "claims"),
        ({"exp": "tomorrow"}, "claims"),
        ({"exp": True}, "claims"),
        ({"nbf": NOW + 600}, "not_yet"),
        ({"iat": NOW + 600}, "not_yet"),
        ({"iss": "https://evil.example"}, "claims"),
        ({"iss": None}, "claims"),
        ({"iss": ["https://id.example"]}, "claims"),
        ({"aud": "admin"}, "claims"),
        ({"aud": ["admin", "x"]}, "claims"),
        ({"aud": None}, "claims"),
        ({"aud": 7}, "claims"),
        ({"sub": None}, "no_subject"),
        ({"sub": ""}, "no_subject"),
        ({"sub": 7}, "claims"),
        ({"sub": ["ann"]}, "claims"),
    ],
)
def test_wrong_claims_are_denied(more: dict[str, Any], reason: str) -> None:
    """Each with its reason."""
    assert take(jwt(SECRET, **STRICT), mint(**more)) == reason


@pytest.mark.parametrize("exp", [float("inf"), float("nan"), 10**400, -float("inf")])
def test_an_endless_number_is_no_end(exp: float) -> None:
    """JSON of Python knows infinity, and NaN compares as never expired."""
    for require_exp in (True, False):
        assert take(jwt(SECRET, require_exp=require_exp, **STRICT), mint(exp=exp)) == "claims"


def test_an_audience_that_was_not_asked_for_is_refused() -> None:
    """A token for somebody in particular is not for whoever has no name (RFC 7519, section 4.1.3)."""
    anybody = jwt(SECRET, algorithms=["HS256"], **ANYBODY)
    assert take(anybody, mint()) == "claims"
    assert isinstance(take(anybody, mint(aud=None)), Identity)


def test_a_token_without_an_end_is_a_choice() -> None:
    """Refused, unless it was chosen."""
    assert take(jwt(SECRET, require_exp=False, **STRICT), mint(exp=None)) == Identity("ann", None)
    assert take(jwt(SECRET, require_exp=False, **STRICT), mint(exp=NOW - 1)) == "expired"


def test_leeway_lengthens_both() -> None:
    """The token's life and the connection's."""
    end = int(time.time()) - 5
    assert take(jwt(SECRET, leeway_s=60, **STRICT), mint(exp=end)) == Identity("ann", end + 60)
    assert take(jwt(SECRET, leeway_s=2, **STRICT), mint(exp=end)) == "expired"


def _part(value: object) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _none() -> list[str]:
    heads = [_part({"alg": name, "typ": "JWT"}) for name in ("none", "None", "NONE", "")]
    return [f"{head}.{_part(claims())}.{end}" for head in heads for end in ("", "AA")]


@pytest.mark.parametrize("token", _none(), ids=lambda _: "token")  # it holds the time, and xdist compares names
def test_the_algorithm_none_is_refused(token: str) -> None:
    """In every spelling, with and without something where the signature would be."""
    assert take(jwt(SECRET, **STRICT), token) in ("truncated", "bad_signature")
    assert take(jwt(RSA_PUBLIC, algorithms=["RS256"], issuer=None, audience="chat"), token) in (
        "truncated",
        "bad_signature",
    )


def test_a_public_key_is_no_secret() -> None:
    """HS256 over the public key, which everybody has, does not pass where RS256 is asked for."""
    take_it = jwt(RSA_PUBLIC, algorithms=["RS256"], issuer=None, audience="chat")
    for kid in (None, "r1"):
        header = {"alg": "HS256"} | ({"kid": kid} if kid else {})
        signed = f"{_part(header)}.{_part(claims())}"
        signature = hmac.new(RSA_PUBLIC, signed.encode(), hashlib.sha256).digest()
        assert take(take_it, f"{signed}.{_part(signature)}") == "bad_signature"


def test_a_key_in_the_token_is_not_used() -> None:
    """``jwk`` and ``jku`` in the header are what the attacker wrote."""
    take_it = jwt(EC, algorithms=["ES256"], issuer=None, audience="chat")
    other = ECKey.generate_key("P-256")
    assert take(take_it, mint(other, "ES256", {"jwk": other.as_dict(private=False)})) == "bad_signature"
    assert take(take_it, mint(other, "ES256", {"jku": "https://evil.example"})) == "bad_signature"


def test_a_kid_that_nobody_knows_is_refused() -> None:
    """Of a set the ``kid`` chooses, and a token without one is not tried against all."""
    take_it = jwt(KeySet([RSA, OTHER]), algorithms=["RS256"], issuer=None, audience="chat")
    assert take(take_it, mint(RSA, "RS256", {"kid": "r9"})) == "bad_signature"
    assert take(take_it, mint(RSA, "RS256", {"kid": "r2"})) == "bad_signature"
    assert isinstance(take(take_it, mint(RSA, "RS256", {"kid": "r1"})), Identity)


def test_an_encrypted_token_is_refused() -> None:
    """Everybody can encrypt for a public key: it says nothing about who wrote it, and it may be a bomb."""
    body = json.dumps(claims()).encode()
    token = jwe.encrypt_compact({"alg": "RSA-OAEP", "enc": "A128GCM"}, body, RSA)
    assert take(jwt(RSA, algorithms=["RS256"], issuer=None, audience="chat"), token) == "malformed"


def test_broken_tokens_are_denied() -> None:
    """Truncated anywhere, changed anywhere, or no token at all."""
    take_it, token = jwt(SECRET, **STRICT), mint()
    reasons = {take(take_it, token[:length]) for length in range(0, len(token), 5)}
    assert reasons == {"truncated", "bad_signature"}
    for index in range(0, len(token) - 1, 9):
        changed = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
        assert take(take_it, changed) in ("bad_signature", "malformed", "truncated")
    for body in (b"[]", b"7", b"{", b"\xff", b"[" * 20_000):
        signed = jws.serialize_compact({"alg": "HS256"}, body, OctKey.import_key(SECRET))
        assert take(take_it, signed) in ("malformed", "too_long")
    for nothing in ("", ".", "..", "...", "a.b.c", ". . ."):
        assert take(take_it, nothing) in ("truncated", "malformed", "bad_signature")


def test_keys_may_rotate() -> None:
    """A callable is asked for each token, sync or async; what it gives is imported once."""
    given: list[Any] = [{"keys": [RSA.as_dict(private=False)]}]
    asked: list[int] = []

    def now() -> Any:
        asked.append(1)
        return given[0]

    async def later() -> Any:
        return now()

    for source in (now, later):
        given[0] = {"keys": [RSA.as_dict(private=False)]}
        take_it = jwt(source, algorithms=["RS256"], issuer=None, audience="chat")
        assert isinstance(take(take_it, mint(RSA, "RS256", {"kid": "r1"})), Identity)
        given[0] = {"keys": [OTHER.as_dict(private=False)]}
        assert take(take_it, mint(RSA, "RS256", {"kid": "r1"})) == "bad_signature"
        assert isinstance(take(take_it, mint(OTHER, "RS256", {"kid": "r2"})), Identity)
    assert len(asked) == 6


def test_keys_that_change_in_place_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key is out with the next token; keys that have not changed are not imported again."""
    imports: list[int] = []
    plain = KeySet.import_key_set

    def counted(value: Any) -> KeySet:
        imports.append(1)
        return plain(value)

    monkeypatch.setattr(KeySet, "import_key_set", counted)
    given: dict[str, Any] = {"keys": [RSA.as_dict(private=False)]}
    take_it = jwt(lambda: given, algorithms=["RS256"], issuer=None, audience="chat")
    for _ in range(3):
        assert isinstance(take(take_it, mint(RSA, "RS256", {"kid": "r1"})), Identity)
    assert len(imports) == 1
    given["keys"][0] = OTHER.as_dict(private=False)
    assert take(take_it, mint(RSA, "RS256", {"kid": "r1"})) == "bad_signature"
    assert isinstance(take(take_it, mint(OTHER, "RS256", {"kid": "r2"})), Identity)
    assert len(imports) == 2


@pytest.mark.parametrize("given", [None, {"keys": []}, SECRET, {"kty": "oct", "k": _part(SECRET)}])
def test_keys_that_are_none_deny(given: Any) -> None:
    """Through the policy: 500, for that is no fault of the client's."""
    policy = Auth(jwt(lambda: given, algorithms=["RS256"], **ANYBODY), source=bearer_header())
    answer = asyncio.run(policy.admit(handshake((b"authorization", f"Bearer {mint(RSA, 'RS256')}".encode()))))
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (500, "failed")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": "HS256"}, "algorithms"),
        ({"algorithms": None}, "algorithms"),
        ({"algorithms": ["HS256", "RS256"]}, "algorithms"),
        ({"algorithms": ["RS256"]}, "key"),
        ({"algorithms": ["HS512"]}, "key"),
        ({"key": b"s3cr3t"}, "key"),
        ({"key": b""}, "key"),
        ({"key": None}, "key"),
        ({"key": RSA_PUBLIC}, "key"),
        ({"key": RSA}, "key"),
        ({"key": {"kty": "x"}}, "key"),
        ({"key": {"keys": []}}, "key"),
        ({"key": {"keys": [RSA.as_dict(private=False)]}}, "key"),
        ({"key": "s3cr3t-not-pem", "algorithms": ["ES256"]}, "key"),
        ({"issuer": ""}, "issuer"),
        ({"audience": ["chat"]}, "audience"),
        ({"leeway_s": -1}, "leeway_s"),
        ({"leeway_s": float("inf")}, "leeway_s"),
        ({"subject_claim": ""}, "subject_claim"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], name: str) -> None:
    """When it is built, and without the key."""
    given = {"key": SECRET, **STRICT, **options}
    with pytest.raises(ConfigurationError, match=f"^{name}=") as caught:
        jwt(given.pop("key"), **given)
    assert "s3cr3t" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


TAKERS = [jwt(SECRET, **STRICT), jwt(RSA_PUBLIC, algorithms=["RS256"], **ANYBODY)]
HEADERS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "zip", "enc"]),
    st.sampled_from(["none", "HS256", "RS256", "dir", "", None, True, 7, ["b64"], {}]),
)


@given(HEADERS | st.just({"alg": "HS256"}), st.binary(max_size=30), st.binary(max_size=40), st.sampled_from(TAKERS))
def test_no_forged_token_is_taken(header: dict[str, Any], body: bytes, signature: bytes, take_it: Any) -> None:
    """Whatever its header says, without an exception."""
    assert isinstance(take(take_it, f"{_part(header)}.{_part(body)}.{_part(signature)}"), str)
