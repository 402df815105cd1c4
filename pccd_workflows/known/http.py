"""HTTP for public databases: patient with a busy server, plain about what cannot work."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter

from pccd_workflows.core.errors import PccdError

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes that may be gone at the next try."""


class HttpError(PccdError):
    """A server refused a request, or stayed busy for all tries. `status` is None without answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to come back.

    timeout: seconds without a byte until a request counts as lost.
    attempts: tries of one request. first_wait, longest_wait: seconds between tries; doubled from
    one to the next, with jitter, unless the server itself says how long (up to longest_wait).
    """

    timeout: float = 60.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after try number `attempt` (1, 2, ...)."""
        if retry_after is not None:
            return min(retry_after, self.longest_wait)
        jitter = 0.5 + random.random()  # noqa: S311
        return min(self.first_wait * 2.0 ** (attempt - 1), self.longest_wait) * jitter


class PatientAdapter(HTTPAdapter):
    """Sends each request until its whole JSON answer is here, with pauses; bounded.

    What it returns has status 200 and a body that is a JSON object; all else is an HttpError.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        check: Callable[[dict[str, Any]], None] = lambda body: None,  # noqa: ARG005
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(max_retries=0)
        self._patience = patience
        self._check = check
        self._sleep = sleep

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the response of `request`; see the class."""
        host = urlsplit(request.url or "").netloc
        kwargs["timeout"] = self._patience.timeout
        for attempt in range(1, self._patience.attempts + 1):
            retry_after = None
            try:
                response = super().send(request, *args, **kwargs)
                if response.is_redirect:
                    return response
                if response.status_code == 200:
                    self._check(_json_object(response.content))
                    return response
                problem, status = f"answers {response.status_code}", response.status_code
                if status not in BUSY:
                    raise HttpError(f"{host} refuses the request ({_reason(response)}).", status)
                retry_after = _seconds(response.headers)
            except requests.Timeout:
                problem, status = f"is silent for {self._patience.timeout:g} s", None
            except requests.ConnectionError:
                problem, status = "cannot be reached or cut the connection", None
            except (requests.RequestException, orjson.JSONDecodeError):
                problem, status = "sends truncated answers", None
            if attempt < self._patience.attempts:
                self._sleep(self._patience.wait(attempt, retry_after))
        raise HttpError(
            f"{host} {problem}, also at try {self._patience.attempts}: run the same again later, "
            "what is stored stays.",
            status,
        )


def mount(session: requests.Session, adapter: PatientAdapter) -> requests.Session:
    """Make a session send everything through `adapter`."""
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _json_object(content: bytes) -> dict[str, Any]:
    body = orjson.loads(content)
    if not isinstance(body, dict):
        raise HttpError("The server's answer is JSON but no object: its interface has changed.")
    return body


def _reason(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Return what a Retry-After header asks for: seconds, or until a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
