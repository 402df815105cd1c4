"""Passwords blotted out of what is stored or shown."""

from urllib.parse import unquote_plus

SHORTEST_SECRET = 5
"""A shorter password is not blotted out of error messages: it would garble them."""


def secrets_of(uri: str) -> list[str]:
    """Return the password of a MongoDB URI, as it is and percent-encoded."""
    encoded = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    return [text for text in (encoded, unquote_plus(encoded)) if len(text) >= SHORTEST_SECRET]


def redacted(text: str, secrets: list[str]) -> str:
    """Return a text without secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
