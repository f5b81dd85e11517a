"""python3 -m unittest discover receivers/python"""

import base64
import hashlib
import hmac
import http.server
import json
import logging
import threading
import time
import unittest
import urllib.parse

from eventflow_pull import PullError, pull
from eventflow_receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
logging.disable(logging.CRITICAL)


def delivery(id):
    body = json.dumps({"id": id, "event": "patient.created", "type": "patient.created", "timestamp": "2026-01-02T03:04:05.000Z", "data": {}}).encode()
    at = int(time.time())
    mac = hmac.new(base64.b64decode(SECRET[6:]), f"dlv_{id}.{at}.".encode() + body, hashlib.sha256).digest()
    headers = {"webhook-id": f"dlv_{id}", "webhook-timestamp": str(at), "webhook-signature": "v1," + base64.b64encode(mac).decode()}
    return {"id": id, "headers": headers, "body": base64.b64encode(body).decode()}


class Dispatcher(http.server.ThreadingHTTPServer):
    """Keeps deliveries until they are acknowledged. answers are sent first."""

    def __init__(self, pending, answers=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pending, self.answers, self.pages, self.calls = list(pending), list(answers), {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        d = self.server
        d.calls.append(self.path)
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        if d.answers:
            status, kind, headers = d.answers.pop(0)
            return self.answer(status, {"type": "https://e.example/#" + kind, "detail": "do so"}, headers)
        if self.headers["Authorization"] != "Bearer token":
            return self.answer(404, {})
        for id in d.pages.get(query.get("after"), [])[: int(query.get("handled", 0))]:
            if id in d.pending:
                d.pending.remove(id)
        ids = d.pending[: int(query["limit"])]
        cursor = f"cursor-{len(d.pages)}" if ids else ""
        d.pages[cursor] = ids
        self.answer(200, {"deliveries": [delivery(id) for id in ids], "cursor": cursor})

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


class Pull(unittest.TestCase):
    def run_with(self, dispatcher, on):
        stop = threading.Event()
        hooks = Receiver([SECRET], {"patient.*": lambda event: on(event, stop)})
        try:
            pull(hooks, f"http://127.0.0.1:{dispatcher.server_port}", "clinic-a", "billing", token=lambda: "token", limit=2, stop=stop)
        finally:
            dispatcher.shutdown()
            dispatcher.server_close()

    def test_deliveries_are_handled_in_order_and_acknowledged(self):
        d, handled = Dispatcher("abc"), []

        def on(event, stop):
            handled.append(event.id)
            if event.id == "c":
                stop.set()

        self.run_with(d, on)
        self.assertEqual((handled, d.pending), (["a", "b", "c"], []))
        self.assertEqual(d.calls[0], "/v1/namespaces/clinic-a/subscriptions/billing/deliveries:pull?wait=30s&limit=2")

    def test_a_handler_that_fails_is_called_again(self):
        d, tries = Dispatcher("ab"), []

        def on(event, stop):
            if event.id != "b":
                return
            tries.append(event.id)
            if len(tries) == 1:
                raise ValueError("not now")
            stop.set()

        self.run_with(d, on)
        self.assertEqual((len(tries), d.pending), (2, []))
        self.assertIn("after=cursor-0&handled=1", d.calls[1])

    def test_what_may_pass_is_tried_again(self):
        d = Dispatcher("a", [(410, "cursor-expired", ()), (429, "overloaded", [("Retry-After", "1")])])
        self.run_with(d, lambda event, stop: stop.set())
        self.assertEqual(d.pending, [])

    def test_what_somebody_has_to_mend_is_raised(self):
        for answer in ((403, "forbidden", ()), (409, "subscription-not-pulled", ())):
            with self.assertRaises(PullError):
                self.run_with(Dispatcher("a", [answer]), lambda event, stop: stop.set())
