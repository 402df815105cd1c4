"""What is stored of a failure: without passwords, and no more than a document holds."""

from urllib.parse import unquote_plus

SHORTEST_SECRET = 5
"""A shorter password is not blotted out of error messages: it would garble them."""


def secrets_of(uri: str) -> list[str]:
    """Return the password of a MongoDB URI, as it is and percent-encoded."""
    encoded = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    return [text for text in (encoded, unquote_plus(encoded)) if len(text) >= SHORTEST_SECRET]


LONGEST = 200_000
"""Characters of a failure that are kept: some programs put whole arrays into their messages."""


def storable(text: str, secrets: list[str]) -> str:
    """Return a failure's text without secrets, cut in the middle, with nothing BSON refuses."""
    text = redacted(text, secrets).encode(errors="backslashreplace").decode()
    if (left_out := len(text) - LONGEST) <= 0:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[... {left_out} characters ...]\n{text[-half:]}"


def redacted(text: str, secrets: list[str]) -> str:
    """Return a text without secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
