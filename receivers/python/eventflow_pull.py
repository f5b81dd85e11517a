"""Takes the deliveries of a subscription whose spec.delivery.mode is Pull, for a program that no endpoint can reach. Python 3.9,
standard library only.

    from eventflow_pull import pull
    from eventflow_receiver import Receiver

    hooks = Receiver([os.environ["WEBHOOK_SECRET"]], {"appointment.*": remind})
    pull(hooks, "https://eventflow.example", "clinic-a", "billing", token=lambda: open(TOKEN_FILE).read().strip())

What the dispatcher answers is in docs/pull.md.
"""

import base64
import json
import logging
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

_log = logging.getLogger("eventflow_pull")


class PullError(Exception):
    """The dispatcher's answer to a call that no repetition will help."""

    def __init__(self, status, kind, detail):
        super().__init__(f"the dispatcher answered {status}: {detail}")
        self.status, self.kind = status, kind


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):  # the token goes to no other host
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def pull(hooks, url, namespace, subscription, *, token=None, wait=30, limit=20, stop=None):
    """Gives each delivery to the handlers of hooks, one after the other, and acknowledges it once its handler has succeeded. One
    that fails is tried again, and holds back those behind it. stop is a threading.Event that ends the loop; what was handled is
    acknowledged then. Raises PullError for what somebody has to mend. Deliveries are verified as their turn comes: those of a
    page, limit at most, must be handled within five minutes."""
    stop = stop or threading.Event()
    path = f"{url.rstrip('/')}/v1/namespaces/{urllib.parse.quote(namespace)}/subscriptions/{urllib.parse.quote(subscription)}/deliveries:pull"
    acknowledge, failures = {}, 0

    def call(seconds, most):
        query = urllib.parse.urlencode({**acknowledge, "wait": f"{seconds}s", "limit": most})
        request = urllib.request.Request(f"{path}?{query}")
        if token:
            request.add_header("Authorization", f"Bearer {token()}")
        with _OPENER.open(request, timeout=seconds + 30) as response:
            return json.load(response), int(response.headers.get("Retry-After", 0))

    try:
        while not stop.is_set():
            began, pause = time.monotonic(), 0
            try:
                page, retry_after = call(wait, limit)
                handled, failed = _handle_all(hooks, page, stop)
                acknowledge = {"after": page["cursor"], "handled": handled} if handled else {}
                if handled or not page["deliveries"]:
                    failures = 0
                if failed:
                    failures, pause = failures + 1, max(failed, _backoff(failures))
                elif not page["deliveries"] and time.monotonic() - began < wait / 2:  # the dispatcher stops
                    pause = max(retry_after, 1)
            except urllib.error.HTTPError as error:
                refused, retry_after = _refusal(error)
                if refused.kind in ("cursor-invalid", "cursor-expired"):
                    acknowledge = {}
                elif refused.status in (400, 401, 403, 405) or (refused.status == 409 and not retry_after):
                    raise refused from None
                _log.warning("pulling failed; trying again: %s", refused)
                failures, pause = failures + 1, max(retry_after, _backoff(failures))
            except (OSError, ValueError) as error:  # no answer, or one of another server
                _log.warning("pulling failed; trying again: %s", type(error).__name__)
                failures, pause = failures + 1, _backoff(failures)
            if pause:
                stop.wait(pause)
    finally:
        if acknowledge:
            try:
                call(0, 1)  # what it answers comes again
            except (OSError, ValueError) as error:
                _log.warning("the last deliveries could not be acknowledged, and come again: %s", type(error).__name__)


def _handle_all(hooks, page, stop):
    """Returns how many deliveries were handled, and the pause that the first one which failed asks for; 0 if none did."""
    handled = 0
    for delivery in page["deliveries"]:
        if stop.is_set():
            break
        answer = hooks.handle("POST", delivery["headers"], base64.b64decode(delivery["body"]))
        if answer.status != 200:
            return handled, float(answer.headers.get("Retry-After", 1))
        handled += 1
    return handled, 0


def _refusal(error):
    retry_after = error.headers.get("Retry-After", "")
    try:
        problem = json.load(error)
        kind, detail = problem["type"].partition("#")[2], problem["detail"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        kind, detail = "", "no detail"
    return PullError(error.code, kind, detail), int(retry_after) if retry_after.isdecimal() else 0


def _backoff(failures):
    return min(60, 2 ** min(failures, 6)) * random.uniform(0.5, 1)
