"""Makes vectors.json: the package's formats, written a second time from its comments alone, on pyca/cryptography.

    python3 vectors.py > vectors.json
"""
import base64, hashlib, hmac, json, struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand


def expand(seed, label):
    return HKDFExpand(hashes.SHA256(), 32, label).derive(seed)


def derive(secret, salt, label):
    return HKDF(hashes.SHA256(), 32, salt, label).derive(secret)


def parts(*texts):
    return b"".join(struct.pack(">I", len(t.encode())) + t.encode() for t in texts)


def seal(seed, salt, tenant, event, kind, store, plain):
    header = bytes([1, 1]) + expand(seed, b"eventflow/seed/id/1")[:4]
    key = expand(seed, b"eventflow/event/1" + salt)
    return header + salt + AESGCM(key).encrypt(bytes(12), plain, header + parts(tenant, event, kind, store))


def seal_id(seed, tenant, store, text):
    mac = hmac.new(expand(seed, b"eventflow/id/mac/1"), parts(tenant, "", "", store) + text.encode(), hashlib.sha256)
    vector = mac.digest()[:16]
    c = Cipher(algorithms.AES(expand(seed, b"eventflow/id/1")), modes.CTR(vector)).encryptor()
    return "~" + base64.urlsafe_b64encode(vector + c.update(text.encode()) + c.finalize()).decode().rstrip("=")


def blind(seed, tenant, store, use, value):
    text = use.encode() + parts(tenant, "", "", store) + value
    return hmac.new(expand(seed, b"eventflow/lookup/1"), text, hashlib.sha256).digest()[:16]


def wrap(kek, key_id, salt, label, name, plain):
    header = bytes([1, len(key_id)]) + key_id.encode()
    return header + salt + AESGCM(derive(kek, salt, label)).encrypt(bytes(12), plain, header + parts(name))


def stretch(text, n):
    return b"".join(hashlib.sha256(f"{text}/{i}".encode()).digest() for i in range(n // 32 + 1))[:n]


vectors = []
for i, (tenant, event, kind, store, size) in enumerate([
    ("6b3c9f0e-5a35-4f0e-9b0a-0f6c2b1f3d10", "evt_0123456789abcdefghjkmnpqrs", "patient.created", "store-1", 0),
    ("clinic-a", "apt_1", "appointment.updated", "store-1", 1),
    ("clinic-a", "x" * 128, "appointment.deleted", "", 33),
    ("", "a:b", "lab-order.created", "9f86d081884c7d65", 1000),
]):
    seed, salt, kek = stretch(f"seed{i}", 32), stretch(f"salt{i}", 32), stretch(f"kek{i}", 32)
    plain, value = stretch(f"plain{i}", size), stretch(f"value{i}", 16)
    vectors.append({
        "seed": seed.hex(), "salt": salt.hex(), "kek": kek.hex(), "keyID": f"key-{i}", "mark": i,
        "tenant": tenant, "event": event, "type": kind, "store": store, "plain": plain.hex(), "value": value.hex(),
        "sealed": seal(seed, salt, tenant, event, kind, store, plain).hex(),
        "sealedID": seal_id(seed, tenant, store, event),
        "blindKey": blind(seed, tenant, store, "k", value).hex(),
        "blindDigest": blind(seed, tenant, store, "d", value).hex(),
        "blindOrder": blind(seed, tenant, store, "o", value).hex(),
        "wrapped": wrap(kek, f"key-{i}", salt, b"eventflow/seed/1", tenant, seed + bytes([i])).hex(),
        "file": wrap(kek, f"key-{i}", salt, b"eventflow/file/1", "index", plain).hex(),
    })
print(json.dumps(vectors, indent=1))
