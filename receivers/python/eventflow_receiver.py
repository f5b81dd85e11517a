"""Receives deliveries of Event Flow: verifies, deduplicates and routes them. Python 3.9, standard library only,
but for public keys (whpk_), which need the package cryptography.

    from eventflow_receiver import Receiver

    hooks = Receiver([os.environ["WEBHOOK_SECRET"]], {"appointment.*": remind})   # remind(event) -> None
    application = hooks.wsgi                                                      # or hooks.handle(method, headers, body)

What an endpoint has to do is in docs/wire.md; the answers are those of the Go package api/receiver. Both pass the table
api/receiver/testdata/vectors.json.
"""

import base64
import binascii
import collections
import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import math
import re
import secrets as _random
import threading
import time
import unicodedata

RESOURCES = ("patient", "encounter", "observation", "medication", "appointment", "intake", "consent", "lab", "prescription", "note",
             "assessment", "document", "practitioner", "practitioner-role")
ACTIONS = ("created", "updated", "deleted")
# What Event Flow says of subscriptions.
OPERATIONAL = (
    "eventflow.*", "eventflow.endpoint.failing", "eventflow.endpoint.recovered", "eventflow.endpoint.gone",
    "eventflow.delivery.failed", "eventflow.key.rotated",
)
TOLERANCE = 300
MAX_BYTES = (1 << 20) + 4096
LEASE = 300
_log = logging.getLogger("eventflow_receiver")


class Refused(Exception):
    """A delivery that is not accepted. reason is missing, malformed, expired, mismatch (401) or not_an_event (400)."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raised by a handler: answers 503, with Retry-After. This holds back the whole subscription."""

    def __init__(self, seconds):
        super().__init__("the handler asks for a retry later")
        self.seconds = seconds


class Stop(Exception):
    """Raised by a handler: answers 410, upon which the dispatcher stops the subscription. Nothing else answers so."""


Event = collections.namedtuple("Event", "id type timestamp data delivery_id attempt raw")
Answer = collections.namedtuple("Answer", "status headers body")


# The characters that nobody sees and Unicode does not call control, format or space.
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\ufffd\U000e0000-\U000e0fff]")


def _parse_key(text):
    """Returns a key's bytes; ValueError says what is wrong with it, and does not show it."""
    if not isinstance(text, str):
        raise ValueError("a secret is no string: is its environment variable set?")
    odd = any(c != " " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp") for c in text)
    if odd or _IGNORABLE.search(text) or text.strip() != text:
        raise ValueError("the key has white space around it, or a character that nobody sees")
    prefix = next((p for p in ("whsec_", "whpk_", "whsk_") if text.lower().startswith(p)), "")
    if text.startswith("v1,whsec_") or not text.startswith(prefix):
        raise ValueError("the key's prefix is not whsec_ or whpk_")
    if prefix == "whsk_":
        raise ValueError("this is the private key, the sender's alone: the receiver needs the public one, whpk_")
    raw = text.encode()
    if prefix:
        encoded = text[len(prefix):]
        padded = encoded if encoded.endswith("=") else encoded + "=" * (-len(encoded) % 4)
        try:
            raw = base64.b64decode(padded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"the part behind {prefix} is not base64") from None
        if len(padded) % 4 or len(padded.rstrip("=")) != math.ceil(len(raw) * 4 / 3):
            raise ValueError(f"the part behind {prefix} is not base64")
    if prefix == "whpk_":
        return _public_key(raw)
    if not 24 <= len(raw) <= 512:
        raise ValueError("the key has %d bytes, want 24 to 512" % len(raw))
    return raw


def _public_key(raw):
    """Returns a verifier of ed25519. The standard library has none, so this alone needs the package cryptography."""
    if len(raw) != 32:
        raise ValueError("the public key has %d bytes, want 32" % len(raw))
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise ValueError("a public key (whpk_) needs the package cryptography: pip install cryptography") from None
    return Ed25519PublicKey.from_public_bytes(raw)


class Memory:
    """A deduplicator of one process, safe for threads. Others have the same three methods."""

    def __init__(self, limit=100_000, ttl=73 * 3600, clock=time.monotonic):
        self._limit, self._ttl, self._clock = limit, ttl, clock
        self._lock, self._claims, self._handled = threading.Lock(), {}, collections.OrderedDict()

    def claim(self, key, owner, lease):
        """Returns claimed, in_progress or handled."""
        with self._lock:
            now = self._clock()
            while self._handled and next(iter(self._handled.values())) <= now:
                self._handled.popitem(last=False)
            if key in self._handled:
                self._remember(key, now)
                return "handled"
            if key in self._claims and now < self._claims[key][1]:
                return "in_progress"
            if len(self._claims) >= self._limit:
                self._claims = {k: held for k, held in self._claims.items() if now < held[1]}
                if len(self._claims) >= self._limit:
                    raise OverflowError("too many deliveries are in progress")
            self._claims[key] = (owner, now + lease)
            return "claimed"

    def done(self, key):
        """Records that the delivery was handled."""
        with self._lock:
            self._claims.pop(key, None)
            self._remember(key, self._clock())

    def release(self, key, owner):
        """Gives the claim back, if it is still owner's."""
        with self._lock:
            if self._claims.get(key, ("",))[0] == owner:
                del self._claims[key]

    def _remember(self, key, now):
        self._handled[key] = now + self._ttl
        self._handled.move_to_end(key)
        if len(self._handled) > self._limit:
            self._handled.popitem(last=False)


def _no_constant(name):
    raise ValueError(name)


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def _decode(body):
    """Returns id, type, timestamp and data of a body, or raises Refused."""
    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        if not isinstance(fields, dict):
            raise ValueError("no object")
        kind = fields.get("type") if fields.get("type") is not None else fields.get("event")
        other = fields.get("event") if fields.get("event") is not None else kind
        id, timestamp, data = fields.get("id"), fields.get("timestamp"), fields.get("data")
        if not (isinstance(id, str) and id and isinstance(kind, str) and kind and kind == other and isinstance(data, dict)):
            raise ValueError("no event")
        if not isinstance(timestamp, str) or not _TIME.fullmatch(timestamp):
            raise ValueError("no time")
        seconds, zone = timestamp[:19], timestamp[19:].lstrip(".0123456789")
        fraction = timestamp[19 : len(timestamp) - len(zone)][1:7].ljust(6, "0")
        when = datetime.datetime.fromisoformat(f"{seconds}.{fraction}{'+00:00' if zone == 'Z' else zone}")
    except (ValueError, RecursionError):
        raise Refused("not_an_event") from None
    return id, kind, when, data


_ID = re.compile(r"[!-+\-/-~]{1,256}")  # visible ASCII but '.' and ','


def _single(headers, name):
    values = [value for key, value in headers if key.lower() == name]
    if len(values) > 1:
        raise Refused("malformed")
    if not values or values[0] == "":
        raise Refused("missing")
    return values[0]


def _verify_standard(keys, headers, body, now, tolerance):
    id, timestamp, signatures = (_single(headers, "webhook-" + name) for name in ("id", "timestamp", "signature"))
    if not _ID.fullmatch(id) or not re.fullmatch(r"[0-9]{1,15}", timestamp) or not re.fullmatch(r"[\t -~]+", signatures):
        raise Refused("malformed")
    if re.search(r",(?:[ \t]|\Z)", signatures):  # repeated headers that a proxy joined
        raise Refused("malformed")
    if not math.floor(now) - tolerance <= int(timestamp) <= math.floor(now) + tolerance:
        raise Refused("expired")
    signed = f"{id}.{timestamp}.".encode() + body
    for key in keys:
        if not isinstance(key, bytes):
            if _verify_pair(key, signatures, signed):
                return id, id
            continue
        mac = hmac.new(key, signed, hashlib.sha256).digest()
        want = "v1," + base64.b64encode(mac).decode()
        for given in signatures.split():
            if hmac.compare_digest(want, given):
                return id, id
    raise Refused("mismatch")


_PAIR = re.compile(r"v1a,[A-Za-z0-9+/]{85}[AQgw]==")  # the one way to write 64 bytes
_MAX_ASYMMETRIC = 8  # signatures for each key: each more would let anyone buy the time of a verification


def _verify_pair(key, signatures, signed):
    from cryptography.exceptions import InvalidSignature  # there is a key, so there is the package

    for given in [g for g in signatures.split() if _PAIR.fullmatch(g)][:_MAX_ASYMMETRIC]:
        try:
            key.verify(base64.b64decode(given[4:]), signed)
            return True
        except InvalidSignature:
            continue
    return False


def _verify_body(keys, headers, body):
    here = any(key.lower() == "x-clinik-signature" for key, _ in headers)
    given = _single(headers, "x-clinik-signature" if here else "x-clinikapi-signature")
    if len(given) != 64 or not given.isascii():
        raise Refused("malformed")
    # A list, so that every key is tried.
    if not any([hmac.compare_digest(hmac.new(key, body, hashlib.sha256).hexdigest(), given) for key in keys if isinstance(key, bytes)]):
        raise Refused("mismatch")
    id = _single(headers, "x-clinik-delivery-id")
    if not _ID.fullmatch(id):
        raise Refused("malformed")
    # No signature covers the id: remembered is the id with the body, so that one delivery cannot be taken for another.
    return id, id + "." + hashlib.sha256(body).hexdigest()[:32]


def _check_pattern(pattern, resources):
    if pattern == "*" or pattern in OPERATIONAL:
        return
    resource, dot, action = pattern.partition(".")
    if not dot or resource not in resources or (action != "*" and action not in ACTIONS):
        raise ValueError(f"pattern {pattern!r}: want *, {{resource}}.* or {{resource}}.{{created|updated|deleted}} of a known resource")


class Receiver:
    """Answers deliveries. secrets is a list, for rotations, of shared keys (whsec_) and public ones (whpk_); on maps patterns to handlers, the most specific wins.

    A handler gets an Event, and has failed if it raises. deduplicator is any object with the methods of Memory.
    scheme is standard (webhook-signature) or body (X-Clinik-Signature, which covers no time and no id).
    """

    def __init__(self, secrets, on=None, *, resources=(), scheme="standard", tolerance=TOLERANCE, max_bytes=MAX_BYTES,
                 deduplicator=None, lease=LEASE, clock=time.time):
        if not (isinstance(tolerance, (int, float)) and math.isfinite(tolerance) and tolerance >= 1):
            raise ValueError("the tolerance is not a number of seconds, at least 1")
        if scheme not in ("standard", "body"):
            raise ValueError("the scheme is neither standard nor body")
        self._scheme, self._tolerance, self._max_bytes, self._lease, self._clock = scheme, tolerance, max_bytes, lease, clock
        self._deduplicator = Memory() if deduplicator is None else deduplicator
        self._on = dict(on or {})
        for pattern in self._on:
            _check_pattern(pattern, {*RESOURCES, *resources})
        self.set_secrets(secrets)

    def set_secrets(self, secrets):
        """Replaces the keys, for a rotation without a restart. Raises ValueError, and keeps the old ones, if one is none."""
        if isinstance(secrets, str) or not secrets:
            raise ValueError("secrets is not a list of at least one")
        self._keys = [_parse_key(secret) for secret in secrets]

    def verify(self, headers, body):
        """Returns the id of a delivery and what is remembered of it; raises Refused. headers are a dict or pairs."""
        headers = list(headers.items() if hasattr(headers, "items") else headers)
        if self._scheme == "body":
            return _verify_body(self._keys, headers, body)
        return _verify_standard(self._keys, headers, body, self._clock(), self._tolerance)

    def route(self, kind):
        """Returns the pattern that gets a type, or None."""
        return next((p for p in (kind, kind.split(".", 1)[0] + ".*", "*") if p in self._on), None)

    def handle(self, method, headers, body):
        """Answers a request. headers are a dict or pairs; body is the raw bytes."""
        headers = list(headers.items() if hasattr(headers, "items") else headers)
        status = self._refuse(method, headers, len(body))
        if status:
            return _answer(status)
        try:
            id, key = self.verify(headers, body)
            event_id, kind, timestamp, data = _decode(body)
        except Refused as refused:
            _log.warning("delivery not accepted: %s", refused.reason)
            return _answer(400 if refused.reason == "not_an_event" else 401)
        pattern = self.route(kind)
        if pattern is None:
            return _answer(200)
        attempt = next((value for name, value in headers if name.lower() == "x-clinik-attempt"), "")
        event = Event(event_id, kind, timestamp, data, id, int(attempt) if re.fullmatch("[0-9]{1,9}", attempt) else 0, body)
        return self._once(key, event, self._on[pattern])

    def _refuse(self, method, headers, length):
        if method != "POST":
            return 405
        values = collections.defaultdict(str)
        for name, value in headers:
            values[name.lower()] += value
        if values["content-encoding"].strip().lower() not in ("", "identity"):
            return 415
        media, _, parameters = values["content-type"].lower().partition(";")
        charset = re.search(r"charset=\"?([^\";\s]*)", parameters)
        if (media and media.strip() != "application/json" and not media.strip().endswith("+json")) or (charset and charset[1] != "utf-8"):
            return 415
        return 413 if length > self._max_bytes else 0

    def _once(self, key, event, handler):
        owner, claim = _random.token_hex(16), None
        try:
            claim = self._deduplicator.claim(key, owner, self._lease)
        except Exception:  # deliver rather than lose
            _log.exception("deduplication failed, %s may be handled twice", event.delivery_id)
        if claim == "handled":
            return _answer(200, duplicate=True)
        if claim == "in_progress":
            return _answer(409)
        handled = False
        try:
            handler(event)
            handled = True
        except Stop:
            return _answer(410)
        except Retry as retry:
            return _answer(503, retry=retry.seconds)
        except Exception:
            _log.exception("the handler of %s failed", event.delivery_id)
            return _answer(500)
        finally:  # also if the thread is told to end
            with contextlib.suppress(Exception):
                if handled:
                    self._deduplicator.done(key)
                elif claim == "claimed":
                    self._deduplicator.release(key, owner)
        return _answer(200)

    def wsgi(self, environ, start_response):
        """The receiver as a WSGI application (PEP 3333)."""
        headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
        headers.append(("content-type", environ.get("CONTENT_TYPE", "")))
        length = environ.get("CONTENT_LENGTH") or "0"
        body = b""
        if length.isdecimal() and int(length) <= self._max_bytes:
            body = environ["wsgi.input"].read(int(length))
            answer = self.handle(environ["REQUEST_METHOD"], headers, body)
        else:
            answer = _answer(413 if length.isdecimal() else 400)
        start_response(f"{answer.status} {_PHRASES[answer.status]}", list(answer.headers.items()))
        return [answer.body]


_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 405: "Method Not Allowed", 409: "Conflict", 410: "Gone",
            413: "Content Too Large", 415: "Unsupported Media Type", 500: "Internal Server Error", 503: "Service Unavailable"}


def _answer(status, duplicate=False, retry=None):
    headers = {"Content-Type": "application/json"}
    if status == 405:
        headers["Allow"] = "POST"
    if retry is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry)))
    body = {"error": _PHRASES[status]} if status != 200 else {"received": True, **({"duplicate": True} if duplicate else {})}
    return Answer(status, headers, json.dumps(body).encode())
