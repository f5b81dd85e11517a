"""python3 -m unittest discover receivers/python"""

import base64
import io
import json
import logging
import pathlib
import subprocess
import sys
import threading
import unittest
import unittest.mock

from eventflow_receiver import Memory, Receiver, Refused, Retry, Stop, _decode, _parse_key

TESTDATA = pathlib.Path(__file__).parents[2] / "api" / "receiver" / "testdata"
TABLE = json.loads((TESTDATA / "vectors.json").read_text())
GOOD = next(v for v in TABLE["answers"] if v["name"] == "an event")
logging.disable(logging.CRITICAL)
try:
    import cryptography  # for public keys alone
except ImportError:
    cryptography = None


def body(v):
    return base64.b64decode(v["bodyBase64"]) if "bodyBase64" in v else v["body"].encode()


def receiver(handler, **options):
    return Receiver(GOOD["secrets"], {"*": handler}, clock=lambda: GOOD["now"], **options)


def send(r, headers=None):
    return r.handle("POST", GOOD["headers"] if headers is None else headers, body(GOOD))


class Vectors(unittest.TestCase):
    def each(self, section):
        for v in TABLE[section]:
            needs = any(secret.startswith("whpk_") for secret in v.get("secrets", [v.get("secret", "")]))
            if needs and not cryptography and v.get("ok") is not False:
                continue
            with self.subTest(v.get("name") or v):
                yield v

    def test_the_table_is_current(self):
        subprocess.run([sys.executable, str(TESTDATA / "vectors.py"), "--check"], check=True)

    def test_keys(self):
        for v in self.each("keys"):
            try:
                _parse_key(v["secret"])
                got = True
            except ValueError:
                got = False
            self.assertEqual(got, v["ok"])

    def test_a_public_key_without_the_package(self):
        public = next(v["secret"] for v in TABLE["keys"] if v["name"] == "a public key")
        name = "cryptography.hazmat.primitives.asymmetric.ed25519"
        with unittest.mock.patch.dict(sys.modules, {name: None}):
            with self.assertRaisesRegex(ValueError, "pip install cryptography"):
                Receiver([public])

    def test_signatures(self):
        for v in self.each("verify"):
            r = Receiver(v["secrets"], scheme=v["scheme"], tolerance=v["toleranceSeconds"], clock=lambda: v["now"])
            try:
                r.verify(v["headers"], body(v))
                got = "ok"
            except Refused as refused:
                got = refused.reason
            self.assertEqual(got, v["want"])

    def test_patterns_and_routes(self):
        for v in self.each("patterns"):
            try:
                Receiver(GOOD["secrets"], {v["pattern"]: print}, resources=v["resources"])
                got = True
            except ValueError:
                got = False
            self.assertEqual(got, v["ok"])
        for v in self.each("routes"):
            self.assertEqual(Receiver(GOOD["secrets"], dict.fromkeys(v["on"], print)).route(v["type"]), v["want"])

    def test_events(self):
        for v in self.each("events"):
            try:
                _decode(body(v))
                got = True
            except Refused:
                got = False
            self.assertEqual(got, v["ok"])

    def test_answers(self):
        for v in self.each("answers"):
            handled = []

            def handle(event):
                handled.append(event)
                if v["handler"] != "ok":
                    raise {"fail": OSError(), "later": Retry(60), "stop": Stop()}[v["handler"]]

            r = Receiver(v["secrets"], {"appointment.*": handle}, max_bytes=1024, clock=lambda: v["now"])
            self.assertEqual((r.handle(v["method"], v["headers"], body(v)).status, len(handled)), (v["wantStatus"], v["wantHandled"]))


class Once(unittest.TestCase):
    def test_what_failed_is_tried_again_and_success_is_not(self):
        runs = []

        def handle(event):
            runs.append(event)
            if len(runs) == 1:
                raise OSError

        r = receiver(handle)
        self.assertEqual([send(r).status for _ in range(3)], [500, 200, 200])
        self.assertEqual(len(runs), 2)

    def test_a_concurrent_repetition(self):
        started, proceed = threading.Event(), threading.Event()

        def handle(event):
            started.set()
            proceed.wait(10)

        r = receiver(handle)
        first = threading.Thread(target=send, args=(r,))
        first.start()
        self.assertTrue(started.wait(10))
        self.assertEqual(send(r).status, 409)
        proceed.set()
        first.join()
        self.assertIn(b"duplicate", send(r).body)

    def test_a_store_that_fails_loses_nothing(self):
        for method in ("claim", "done"):
            store, runs = Memory(), []
            setattr(store, method, lambda *_: 1 / 0)
            self.assertEqual((send(receiver(runs.append, deduplicator=store)).status, len(runs)), (200, 1))

    def test_memory_is_bounded(self):
        now = [0]
        m = Memory(limit=2, ttl=10, clock=lambda: now[0])
        for key in "abc":
            m.done(key)
        self.assertEqual([m.claim(key, "o", 5) for key in "bca"], ["handled", "handled", "claimed"])
        m.claim("d", "o", 5)
        with self.assertRaises(OverflowError):
            m.claim("e", "o", 5)
        m.release("d", "another")
        self.assertEqual(m.claim("d", "o", 5), "in_progress")
        now[0] = 10
        self.assertEqual(m.claim("b", "o", 5), "claimed")

    def test_limits_are_checked(self):
        for options in ({"tolerance": float("nan")}, {"tolerance": float("inf")}, {"tolerance": -1}, {"scheme": "none"}):
            with self.assertRaises(ValueError):
                Receiver(GOOD["secrets"], **options)
        for secrets in ([], [None], "one string, not a list of them", [""]):
            with self.assertRaises(ValueError):
                Receiver(secrets)

    def test_rotation(self):
        r = receiver(lambda event: None)
        with self.assertRaises(ValueError):
            r.set_secrets(["short"])
        self.assertEqual(send(r).status, 200)
        r.set_secrets(["another key, of thirty bytes!!"])
        self.assertEqual(send(r).status, 401)

    def test_wsgi(self):
        got = []
        environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body(GOOD))), "wsgi.input": io.BytesIO(body(GOOD))}
        environ.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in GOOD["headers"] if name != "Content-Type"})
        runs = []
        r = receiver(runs.append)
        self.assertEqual(r.wsgi(environ, lambda status, headers: got.append(status)), [b'{"received": true}'])
        self.assertEqual((got, runs[0].delivery_id, runs[0].data["resourceId"]), (["200 OK"], dict(GOOD["headers"])["webhook-id"], "appt_1"))
        r.wsgi(environ | {"CONTENT_LENGTH": "99999999"}, lambda status, headers: got.append(status))
        self.assertEqual(got[-1], "413 Content Too Large")


if __name__ == "__main__":
    unittest.main()
