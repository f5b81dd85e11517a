"""Writes vectors.json, the one table that the receivers in Go, Node and Python are tested by.

It signs with Python's own hmac, and with the arithmetic of RFC 8032 written out, and shares no code with any of the three. With --check it writes nothing, and fails if
the file is not what it would write.

keys      secret, and whether it is a key
verify    scheme, secrets, toleranceSeconds, now, headers, body -> verdict: ok, missing, malformed, expired, mismatch
patterns  pattern, resources -> whether it may be routed by
routes    on (the patterns), type -> the pattern that gets it, or null
events    body, signed -> whether it is an event
answers   a request to a receiver that limits bodies to 1024 bytes -> status, and how often its handler was called

Headers are pairs in the order in which they arrive. A body is text, or bytes in base64 under bodyBase64.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

NOW = 1614265330
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RAW = "a raw key of thirty-one bytes.."
OLD = "the old key, with its raw bytes"
OTHER = "another key, with its raw bytes"
UNPADDED = "whsec_dGhlIGtleSBoYXMgMjUgYnl0ZXMgaGVyZQ"  # 25 bytes
ID = "dlv_0d2p2v6n8k5q1m3j7h9s4t6w8y0z2b4d6f8g"
SEED, OTHER_SEED = bytes(range(32)), b"another seed of exactly 32 bytes"
EVENT = (
    '{"id":"evt_1","event":"appointment.created","type":"appointment.created","timestamp":"2026-01-15T09:15:00.000Z",'
    '"data":{"resourceType":"appointment","resourceId":"appt_1","action":"created","tenantId":"org_1","note":"\u00e9\U0001f600"}}'
)


def raw(secret):
    return base64.b64decode(secret[6:] + "==") if secret.startswith("whsec_") else secret.encode()


def v1(secret, id, timestamp, body):
    mac = hmac.new(raw(secret), f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


# Ed25519 as RFC 8032, section 5.1, has it. It is slow, and keeps no secret from anyone who measures it: it is for these vectors.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def recover_x(y):
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x % 2 == 0 else P - x


def add(a, b):
    t = D * a[0] * b[0] * a[1] * b[1] % P
    return ((a[0] * b[1] + b[0] * a[1]) * pow(1 + t, -1, P) % P, (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P) % P)


def times(n, point):
    result = (0, 1)
    while n:
        result, point, n = add(result, point) if n & 1 else result, add(point, point), n >> 1
    return result


def pack(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def scalar(data):
    return int.from_bytes(hashlib.sha512(data).digest(), "little")


def expand(seed):
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254
    return a, h[32:], pack(times(a, (recover_x(BASE_Y), BASE_Y)))


def ed25519(seed, message, beyond=0):
    """Signs. beyond is added to S, which makes a signature that must be refused of one that is right."""
    a, prefix, public = expand(seed)
    r = scalar(prefix + message) % L
    point = pack(times(r, (recover_x(BASE_Y), BASE_Y)))
    s = (r + scalar(point + public + message) * a) % L
    return point + (s + beyond).to_bytes(32, "little")


def whpk(seed):
    return "whpk_" + base64.b64encode(expand(seed)[2]).decode()


def v1a(seed, id, timestamp, body, beyond=0):
    return "v1a," + base64.b64encode(ed25519(seed, f"{id}.{timestamp}.".encode() + body, beyond)).decode()


def hexa(secret, body):
    return hmac.new(raw(secret), body, hashlib.sha256).hexdigest()


def put(vector, body):
    """Adds the body in the form that JSON can hold."""
    try:
        vector["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        vector["bodyBase64"] = base64.b64encode(body).decode()
    return vector


def keys():
    def key(name, secret, ok):
        return {"name": name, "secret": secret, "ok": ok}

    b64 = base64.b64encode
    return [
        key("the known answer's", STANDARD, True),
        key("raw", RAW, True),
        key("raw, 24 bytes", "k" * 24, True),
        key("raw, 24 bytes of 12 characters", "\u00e9" * 12, True),
        key("raw, 512 bytes", "k" * 512, True),
        key("base64, padding left out", UNPADDED, True),
        key("base64, padded", UNPADDED + "==", True),
        key("base64, 512 bytes", "whsec_" + b64(b"k" * 512).decode(), True),
        key("base64, plus and slash", "whsec_" + "+/+/" * 8, True),
        key("empty", "", False),
        key("raw, 23 bytes", "k" * 23, False),
        key("raw, 513 bytes", "k" * 513, False),
        key("base64, 23 bytes", "whsec_" + b64(b"k" * 23).decode(), False),
        key("base64, 513 bytes", "whsec_" + b64(b"k" * 513).decode(), False),
        key("base64, empty", "whsec_", False),
        key("base64, half padded", UNPADDED + "=", False),
        key("base64, too much padding", UNPADDED + "===", False),
        key("base64, cut", STANDARD + "A", False),
        key("base64, URL alphabet", "whsec_" + "-_-_" * 8, False),
        key("base64, blank inside", "whsec_MfKQ 9r8GKYqrTwjUPD8ILPZIo2LaLaSw", False),
        key("base64, padding inside", "whsec_MfKQ9r8=GKYqrTwjUPD8ILPZIo2LaLaS", False),
        key("newline behind", STANDARD + "\n", False),
        key("blank before", " " + STANDARD, False),
        key("tab inside", RAW[:9] + "\t" + RAW[9:], False),
        key("NUL behind", RAW + "\x00", False),
        key("no-break space behind", RAW + "\u00a0", False),
        key("zero width space inside", RAW[:9] + "\u200b" + RAW[9:], False),
        key("variation selector inside", RAW[:9] + "\ufe0f" + RAW[9:], False),
        key("byte order mark before", "\ufeff" + STANDARD, False),
        key("replacement character inside", RAW[:9] + "\ufffd" + RAW[9:], False),
        key("a signature's version before", "v1," + STANDARD, False),
        key("prefix in upper case", "WHSEC_" + STANDARD[6:], False),
        key("a public key", whpk(SEED), True),
        key("a public key, padding left out", whpk(SEED).rstrip("="), True),
        key("a public key of 31 bytes", "whpk_" + b64(b"k" * 31).decode(), False),
        key("a public key of 33 bytes", "whpk_" + b64(b"k" * 33).decode(), False),
        key("a public key, empty", "whpk_", False),
        key("a public key, URL alphabet", whpk(SEED).replace("/", "_"), False),
        key("a public key, newline behind", whpk(SEED) + "\n", False),
        key("a public key, prefix in upper case", "WHPK_" + whpk(SEED)[5:], False),
        key("a private key, which is the sender's", "whsk_" + b64(SEED).decode(), False),
        key("a private key, prefix in upper case", "WHSK_" + b64(SEED).decode(), False),
    ]


def verify():
    def vector(name, want, *, id=ID, timestamp=str(NOW), signatures=None, body=EVENT.encode(), sent=None, secrets=(STANDARD,),
               now=NOW, tolerance=300, headers=None):
        if signatures is None:
            signatures = v1(STANDARD, id, timestamp, body)
        if headers is None:
            headers = [["webhook-id", id], ["webhook-timestamp", timestamp], ["webhook-signature", signatures]]
        return put({"name": name, "scheme": "standard", "secrets": list(secrets), "toleranceSeconds": tolerance, "now": now,
                    "headers": headers, "want": want}, body if sent is None else sent)

    body = EVENT.encode()
    good = v1(STANDARD, ID, NOW, body)
    id, time, sig = ["webhook-id", ID], ["webhook-timestamp", str(NOW)], ["webhook-signature", good]
    at = str
    return [
        vector("the known answer of Standard Webhooks", "ok", id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=b'{"test": 2432232314}',
               signatures="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        vector("an event", "ok"),
        vector("names in other case", "ok", headers=[["Webhook-Id", ID], ["WEBHOOK-TIMESTAMP", at(NOW)], ["Webhook-Signature", good]]),
        vector("with the headers that nobody checks", "ok", headers=[
            id, time, sig, ["X-Clinik-Signature", "00"], ["X-Clinik-Delivery-Id", "dlv_other"], ["X-Clinik-Attempt", "x"]]),
        vector("raw key", "ok", secrets=[RAW], signatures=v1(RAW, ID, NOW, body)),
        vector("key without padding", "ok", secrets=[UNPADDED], signatures=v1(UNPADDED, ID, NOW, body)),
        vector("empty body", "ok", body=b""),
        vector("body that is not text", "ok", body=b"\xff\xfe\x00{}"),
        vector("body with a byte order mark", "ok", body=b"\xef\xbb\xbf{}"),
        vector("body that is gzip", "ok", body=bytes.fromhex("1f8b08000000000000ffab0500")),
        vector("large body", "ok", body=b'{"data":"' + b"x" * 70_000 + b'"}'),

        vector("rotation: both sign, the receiver has the new key", "ok", signatures=good + " " + v1(OLD, ID, NOW, body)),
        vector("rotation: both sign, the receiver has the old key", "ok", secrets=[OLD], signatures=good + " " + v1(OLD, ID, NOW, body)),
        vector("rotation: one signs, the receiver has both", "ok", secrets=[OLD, STANDARD]),
        vector("rotation: over, the receiver has the old key alone", "mismatch", secrets=[OLD]),
        vector("other key", "mismatch", secrets=[OTHER]),

        vector("5 minutes late", "ok", now=NOW + 300),
        vector("5 minutes early", "ok", now=NOW - 300),
        vector("a second too late", "expired", now=NOW + 301),
        vector("a second too early", "expired", now=NOW - 301),
        vector("within a tolerance of its own", "ok", now=NOW + 1000, tolerance=1000),
        vector("outside a tolerance of its own", "expired", now=NOW + 11, tolerance=10),
        vector("old, and of another key", "expired", now=NOW + 301, secrets=[OTHER]),
        vector("time 0", "expired", timestamp="0"),
        vector("time of 15 digits", "expired", timestamp="9" * 15),
        vector("leading zero, signed so", "ok", timestamp="0" + at(NOW)),
        vector("leading zero, not signed so", "mismatch", timestamp="0" + at(NOW), signatures=good),
        vector("time of 16 digits", "malformed", timestamp="9" * 16),
        vector("time of 400 digits", "malformed", timestamp="9" * 400),
        vector("time is NaN", "malformed", timestamp="NaN"),
        vector("time is Infinity", "malformed", timestamp="Infinity"),
        vector("time with a sign", "malformed", timestamp="+" + at(NOW)),
        vector("negative time", "malformed", timestamp="-1"),
        vector("time with a fraction", "malformed", timestamp=at(NOW) + ".0"),
        vector("time as a power", "malformed", timestamp="1e9"),
        vector("time in hexadecimal", "malformed", timestamp="0x60379b32"),
        vector("time with a separator", "malformed", timestamp="1_614_265_330"),
        vector("time in other digits", "malformed", timestamp="\u0661\u0666\u0661\u0664\u0662\u0666\u0665\u0663\u0663\u0660"),
        vector("time with a blank", "malformed", timestamp=" " + at(NOW)),
        vector("time in milliseconds", "expired", timestamp=at(NOW * 1000)),

        vector("changed body", "mismatch", sent=body + b" "),
        vector("other id", "mismatch", id="dlv_2", signatures=good),
        vector("other time", "mismatch", timestamp=at(NOW + 1), signatures=good),
        vector("id with a dot", "malformed", id="dlv.1"),
        vector("id with a comma", "malformed", id="dlv_1,dlv_1"),
        vector("id with a blank", "malformed", id="dlv 1"),
        vector("id beyond ASCII", "malformed", id="dlv_\u00e9"),
        vector("id of 256 bytes", "ok", id="d" * 256),
        vector("id of 257 bytes", "malformed", id="d" * 257),
        vector("id that is __proto__", "ok", id="__proto__"),

        vector("no headers", "missing", headers=[]),
        vector("no id", "missing", headers=[time, sig]),
        vector("no time", "missing", headers=[id, sig]),
        vector("no signature", "missing", headers=[id, time]),
        vector("empty id", "missing", id=""),
        vector("empty time", "missing", timestamp=""),
        vector("empty signature", "missing", signatures=""),
        vector("only the body's signature", "missing", headers=[
            ["X-Clinik-Signature", hexa(STANDARD, body)], ["X-Clinik-Delivery-Id", ID], ["X-Clinik-Timestamp", at(NOW)]]),

        vector("repeated id", "malformed", headers=[id, id, time, sig]),
        vector("repeated time", "malformed", headers=[id, time, time, sig]),
        vector("repeated signature", "malformed", headers=[id, time, sig, sig]),
        vector("repeated signature in other case", "malformed", headers=[id, time, ["Webhook-Signature", "v1,AAAA"], sig]),
        vector("repeated signature, joined by a proxy", "malformed", signatures="v1,AAAA, " + good),

        vector("many signatures", "ok", signatures=" ".join(["v1," + "A" * 43 + "="] * 20 + [good])),
        vector("blanks around and between", "ok", signatures="  v1,AAAA   " + good + " "),
        vector("tab between", "ok", signatures="v1,AAAA\t" + good),
        vector("no-break space between", "malformed", signatures="v1,AAAA\u00a0" + good),
        vector("only blanks", "mismatch", signatures="  "),
        vector("other versions beside", "ok", signatures="v1a,xyz " + good + " v2,abc"),
        vector("another version alone", "mismatch", signatures="v2" + good[2:]),
        vector("version in upper case", "mismatch", signatures="V1" + good[2:]),
        vector("no version", "mismatch", signatures=good[3:]),
        vector("without padding", "mismatch", signatures=good.rstrip("=")),
        vector("cut to its version", "malformed", signatures="v1,"),
        vector("cut by one", "mismatch", signatures=good[:-2]),
        vector("one character more", "mismatch", signatures=good + "A"),
        vector("spare bits of base64 set", "mismatch", signatures=good[:-2] + chr(ord(good[-2]) + 1) + "="),
        vector("not base64", "mismatch", signatures="v1," + "!" * 43 + "="),
        vector("hexadecimal", "mismatch", signatures="v1," + hexa(STANDARD, f"{ID}.{NOW}.".encode() + body)),
        vector("__proto__", "mismatch", signatures="__proto__ constructor,x"),
    ]


def verify_pairs():
    def vector(name, want, *, id=ID, timestamp=str(NOW), signatures=None, body=EVENT.encode(), sent=None, secrets=(whpk(SEED),), now=NOW):
        if signatures is None:
            signatures = v1a(SEED, id, timestamp, body)
        headers = [["webhook-id", id], ["webhook-timestamp", timestamp], ["webhook-signature", signatures]]
        return put({"name": "pair: " + name, "scheme": "standard", "secrets": list(secrets), "toleranceSeconds": 300, "now": now,
                    "headers": headers, "want": want}, body if sent is None else sent)

    body = EVENT.encode()
    good, shared = v1a(SEED, ID, NOW, body), v1(STANDARD, ID, NOW, body)
    wrong = "v1a," + "A" * 86 + "=="
    return [
        vector("the known answer's message", "ok", id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=b'{"test": 2432232314}'),
        vector("an event", "ok"),
        vector("empty body", "ok", body=b""),
        vector("not UTF-8", "ok", body=b"\x00\xff\xfe"),
        vector("padding of the key left out", "ok", secrets=[whpk(SEED).rstrip("=")]),
        vector("five minutes late", "ok", now=NOW + 300),
        vector("too late", "expired", now=NOW + 301),
        vector("another pair", "mismatch", secrets=[whpk(OTHER_SEED)]),
        vector("one of two pairs", "ok", secrets=[whpk(OTHER_SEED), whpk(SEED)]),
        vector("changed body", "mismatch", sent=body + b" "),
        vector("other id", "mismatch", id="dlv_2", signatures=good),
        vector("other time", "mismatch", timestamp=str(NOW + 1), signatures=good),
        vector("both sign, the receiver has the public key", "ok", signatures=shared + " " + good),
        vector("both sign, the pair first, the receiver has the shared key", "ok", signatures=good + " " + shared, secrets=[STANDARD]),
        vector("both sign, the receiver has both", "ok", signatures=shared + " " + good, secrets=[STANDARD, whpk(SEED)]),
        vector("the pair alone signs, the receiver has both", "ok", secrets=[STANDARD, whpk(SEED)]),
        vector("the pair alone signs, the receiver has the shared key", "mismatch", secrets=[STANDARD]),
        vector("the shared key alone signs, the receiver has the public key", "mismatch", signatures=shared),
        vector("HMAC by the public key's text", "mismatch", signatures=v1(whpk(SEED), ID, NOW, body)),
        vector("HMAC by the public key's bytes", "mismatch", signatures=v1("whsec_" + whpk(SEED)[5:], ID, NOW, body)),
        vector("as v1", "mismatch", signatures="v1," + good[4:]),
        vector("version in upper case", "mismatch", signatures="V1A," + good[4:]),
        vector("without padding", "mismatch", signatures=good.rstrip("=")),
        vector("cut by one", "mismatch", signatures=good[:-3]),
        vector("one character more", "mismatch", signatures=good + "A"),
        vector("spare bits of base64 set", "mismatch", signatures=good[:-3] + chr(ord(good[-3]) + 1) + "=="),
        vector("URL alphabet", "mismatch", signatures="v1a," + good[4:].replace("+", "-").replace("/", "_")),
        vector("not base64", "mismatch", signatures="v1a," + "!" * 86 + "=="),
        vector("S beyond the order", "mismatch", signatures=v1a(SEED, ID, NOW, body, L)),
        vector("zeros", "mismatch", signatures=wrong),
        vector("seven wrong ones before", "ok", signatures=" ".join([wrong] * 7 + [good])),
        vector("eight wrong ones before", "mismatch", signatures=" ".join([wrong] * 8 + [good])),
        vector("many of another length before", "ok", signatures=" ".join(["v1a,xyz"] * 50 + [good])),
    ]


def verify_body():
    body = EVENT.encode()
    good = hexa(STANDARD, body)
    id = ["X-Clinik-Delivery-Id", ID]

    def vector(name, want, *, headers=None, signature=good, sent=body, secrets=(STANDARD,)):
        if headers is None:
            headers = [["X-Clinik-Signature", signature], ["X-ClinikAPI-Signature", signature], id]
        return put({"name": "body only: " + name, "scheme": "body", "secrets": list(secrets), "toleranceSeconds": 300, "now": NOW,
                    "headers": headers, "want": want}, sent)

    return [
        vector("an event", "ok"),
        vector("by the guide's name alone", "ok", headers=[["X-ClinikAPI-Signature", good], id]),
        vector("by the reference's name alone", "ok", headers=[["x-clinik-signature", good], id]),
        vector("a wrong one beats the right alias", "mismatch", headers=[["X-Clinik-Signature", "0" * 64], ["X-ClinikAPI-Signature", good], id]),
        vector("raw key", "ok", secrets=[RAW], signature=hexa(RAW, body)),
        vector("one of two keys", "ok", secrets=[OTHER, STANDARD]),
        vector("other key", "mismatch", secrets=[OTHER]),
        vector("changed body", "mismatch", sent=body + b"\n"),
        vector("empty body", "ok", sent=b"", signature=hexa(STANDARD, b"")),
        vector("upper case", "mismatch", signature=good.upper()),
        vector("cut", "malformed", signature=good[:-1]),
        vector("one character more", "malformed", signature=good + "0"),
        vector("no hexadecimal", "mismatch", signature="g" * 64),
        vector("beyond ASCII", "malformed", signature="\u00e9" * 32 + "0" * 33),
        vector("empty", "missing", signature=""),
        vector("no signature", "missing", headers=[id]),
        vector("a public key makes none", "mismatch", secrets=[whpk(SEED)]),
        vector("a shared key beside a public one", "ok", secrets=[whpk(SEED), STANDARD]),
        vector("no id", "missing", headers=[["X-Clinik-Signature", good]]),
        vector("id with a dot", "malformed", headers=[["X-Clinik-Signature", good], ["X-Clinik-Delivery-Id", "a.b"]]),
        vector("repeated", "malformed", headers=[["X-Clinik-Signature", good], ["X-Clinik-Signature", good], id]),
        vector("repeated id", "malformed", headers=[["X-Clinik-Signature", good], id, id]),
        vector("only the standard signature", "missing", headers=[
            ["webhook-id", ID], ["webhook-timestamp", str(NOW)], ["webhook-signature", v1(STANDARD, ID, NOW, body)]]),
    ]


def patterns():
    good = ["*", "patient.*", "patient.created", "practitioner-role.deleted", "eventflow.*", "eventflow.endpoint.failing",
            "eventflow.endpoint.recovered", "eventflow.endpoint.gone", "eventflow.delivery.failed", "eventflow.key.rotated"]
    bad = ["", "patient", "patient.", "*.created", "patient.renamed", "patient.*.*", "**", "Patient.*", " *", "patient.created,lab.*",
           "claim.*", "appointmnt.created", "__proto__", "__proto__.created", "constructor.*", "-a.created",
           "eventflow.created", "eventflow.endpoint.*", "eventflow"]
    return ([{"pattern": p, "resources": [], "ok": True} for p in good] + [{"pattern": p, "resources": [], "ok": False} for p in bad]
            + [{"pattern": "claim.*", "resources": ["claim"], "ok": True}, {"pattern": "claim.created", "resources": ["claim"], "ok": True},
               {"pattern": "claim.created", "resources": ["invoice"], "ok": False}])


def routes():
    def route(on, type, want):
        return {"on": on, "type": type, "want": want}

    every = ["*", "patient.*", "patient.created", "practitioner.*"]
    return [
        route(every, "patient.created", "patient.created"), route(every, "patient.updated", "patient.*"), route(every, "lab.created", "*"),
        route(every, "practitioner-role.created", "*"), route(every, "practitioner.deleted", "practitioner.*"),
        route(["patient.*"], "lab.created", None), route(["patient.created"], "patient.updated", None), route([], "lab.created", None),
        route(every, "patient.merged", "patient.*"), route(every, "eventflow.key.rotated", "*"), route(every, "__proto__", "*"),
        route(["*", "eventflow.*"], "eventflow.key.rotated", "eventflow.*"),
        route(["patient.*"], "__proto__", None), route(["patient.*"], "constructor", None), route(["patient.*"], "toString.created", None),
        route(["patient.*"], "patients.created", None), route(["patient.*"], "Patient.created", None),
    ]


def events():
    envelope = {"id": "evt_1", "event": "lab.created", "type": "lab.created", "timestamp": "2026-01-15T09:15:00.000Z", "data": {}}

    def event(name, ok, body):
        return put({"name": name, "ok": ok}, body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode())

    def without(key):
        return {k: v for k, v in envelope.items() if k != key}

    def nested(depth):
        return json.dumps(envelope)[:-3].encode() + b'{"a":' + b"[" * depth + b"]" * depth + b"}}"

    return [
        event("an event", True, EVENT.encode()), event("the least event", True, envelope), event("no type, but event", True, without("type")),
        event("no event, but type", True, without("event")), event("null for type", True, envelope | {"type": None}),
        event("names of its own", True, envelope | {"more": 1}), event("white space around", True, b" \n" + json.dumps(envelope).encode() + b"\n"),
        event("time with an offset", True, envelope | {"timestamp": "2026-01-15T10:15:00+01:00"}),
        event("a type that is not known", True, envelope | {"event": "eventflow.key.rotated", "type": "eventflow.key.rotated"}),
        event("type __proto__", True, envelope | {"event": "__proto__", "type": "__proto__"}),
        event("a surrogate alone", True, json.dumps(envelope)[:-3].encode() + b'{"a":"\\ud83d"}}'),
        event("__proto__ in the data", True, json.dumps(envelope)[:-3].encode() + b'{"__proto__":{"polluted":true},"\\u005f_proto__":{"polluted":true}}}'),
        event("500 levels", True, nested(500)),
        event("empty", False, b""), event("blank", False, b" "), event("null", False, b"null"), event("array", False, b"[]"),
        event("string", False, b'"patient.created"'), event("cut", False, json.dumps(envelope)[:-1].encode()),
        event("more behind", False, json.dumps(envelope).encode() + b"{}"), event("another JSON", False, b'{"test": 2432232314}'),
        event("byte order mark", False, b"\xef\xbb\xbf" + json.dumps(envelope).encode()),
        event("not UTF-8", False, json.dumps(envelope)[:-3].encode() + b'{"a":"\xff"}}'),
        event("UTF-16", False, json.dumps(envelope).encode("utf-16")), event("gzip", False, bytes.fromhex("1f8b08000000000000ffab0500")),
        event("NaN", False, json.dumps(envelope)[:-3].encode() + b'{"a":NaN}}'),
        event("Infinity", False, json.dumps(envelope)[:-3].encode() + b'{"a":-Infinity}}'),
        event("a control character in a string", False, json.dumps(envelope)[:-3].encode() + b'{"a":"\n"}}'),
        event("no id", False, without("id")), event("empty id", False, envelope | {"id": ""}), event("id is a number", False, envelope | {"id": 1}),
        event("no type and no event", False, {k: v for k, v in without("type").items() if k != "event"}),
        event("type and event differ", False, envelope | {"event": "lab.updated"}), event("type is an array", False, envelope | {"type": ["lab.created"]}),
        event("names in other case", False, {k.upper(): v for k, v in envelope.items()}),
        event("no timestamp", False, without("timestamp")), event("timestamp is a number", False, envelope | {"timestamp": NOW}),
        event("timestamp is no time", False, envelope | {"timestamp": "yesterday"}),
        event("timestamp without zone", False, envelope | {"timestamp": "2026-01-15T09:15:00"}),
        event("timestamp of no month", False, envelope | {"timestamp": "2026-13-15T09:15:00Z"}),
        event("no data", False, without("data")), event("data is null", False, envelope | {"data": None}),
        event("data is an array", False, envelope | {"data": []}), event("data is a string", False, envelope | {"data": "x"}),
    ]


def answers():
    body = EVENT.encode()

    def answer(name, status, handled, *, method="POST", extra=(["Content-Type", "application/json"],), body=body, secret=STANDARD, handler="ok", at=NOW):
        headers = [["webhook-id", ID], ["webhook-timestamp", str(at)], ["webhook-signature", v1(secret, ID, at, body)], *extra]
        return put({"name": name, "method": method, "headers": headers, "secrets": [STANDARD], "now": NOW, "handler": handler,
                    "wantStatus": status, "wantHandled": handled}, body)

    def typed(text):
        return [["Content-Type", text]]

    def coded(text):
        return [["Content-Type", "application/json"], ["Content-Encoding", text]]

    other = EVENT.replace("appointment.created", "lab.created").encode()
    return [
        answer("an event", 200, 1), answer("no route for it", 200, 0, body=other), answer("the handler fails", 500, 1, handler="fail"),
        answer("the handler asks for later", 503, 1, handler="later"), answer("the handler stops the subscription", 410, 1, handler="stop"),
        answer("GET", 405, 0, method="GET"), answer("PUT", 405, 0, method="PUT"),
        answer("no content type", 200, 1, extra=[]), answer("charset", 200, 1, extra=typed("application/json; charset=UTF-8")),
        answer("charset in quotes", 200, 1, extra=typed('Application/JSON;charset="utf-8"')),
        answer("JSON of a kind", 200, 1, extra=typed("application/fhir+json")), answer("another charset", 415, 0, extra=typed("application/json; charset=utf-16")),
        answer("a form", 415, 0, extra=typed("application/x-www-form-urlencoded")), answer("text", 415, 0, extra=typed("text/plain")),
        answer("gzip", 415, 0, extra=coded("gzip")), answer("identity", 200, 1, extra=coded("identity")),
        answer("gzip twice", 415, 0, extra=coded("identity, gzip")),
        answer("too large", 413, 0, body=b'{"a":"' + b"x" * 1017 + b'"}'), answer("as large as may be, and no event", 400, 0, body=b'{"a":"' + b"x" * 1016 + b'"}'),
        answer("another key", 401, 0, secret=OTHER), answer("too old", 401, 0, at=NOW - 301), answer("signed, and no event", 400, 0, body=b"{}"),
        answer("signed, and empty", 400, 0, body=b""), answer("another key, and no event", 401, 0, secret=OTHER, body=b"{"),
    ]


def main():
    table = {"about": "Written by vectors.py beside it.", "keys": keys(), "verify": verify() + verify_pairs() + verify_body(), "patterns": patterns(),
             "routes": routes(), "events": events(), "answers": answers()}
    lines = ["{"]
    for name, rows in table.items():
        if isinstance(rows, str):
            lines.append(f"  {json.dumps(name)}: {json.dumps(rows)},")
            continue
        lines.append(f"  {json.dumps(name)}: [")
        lines.append(",\n".join("    " + json.dumps(row) for row in rows))
        lines.append("  ],")
    lines[-1] = "  ]"
    text = "\n".join([*lines, "}", ""])
    file = pathlib.Path(__file__).with_name("vectors.json")
    if "--check" not in sys.argv:
        file.write_text(text)
    elif file.read_text() != text:
        sys.exit(f"{file} is not what vectors.py writes: run it")


main()
