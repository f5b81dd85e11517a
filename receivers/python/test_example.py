"""Runs the example of docs/receiving.md."""

import json
import os
import pathlib
import unittest

from eventflow_receiver import Receiver

TABLE = json.loads((pathlib.Path(__file__).parents[2] / "api" / "receiver" / "testdata" / "vectors.json").read_text())
GOOD = next(v for v in TABLE["answers"] if v["name"] == "an event")
reminded = []
remind = reminded.append
os.environ["WEBHOOK_SECRET"] = GOOD["secrets"][0]

hooks = Receiver([os.environ["WEBHOOK_SECRET"]], {"appointment.*": lambda event: remind(event.data["resourceId"])})
application = hooks.wsgi


class Example(unittest.TestCase):
    def test_it(self):
        hooks._clock = lambda: GOOD["now"]
        self.assertEqual(hooks.handle("POST", GOOD["headers"], GOOD["body"].encode()).status, 200)
        self.assertEqual(reminded, ["appt_1"])
        self.assertEqual(application, hooks.wsgi)
