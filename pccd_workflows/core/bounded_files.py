"""Files that others wrote, read with bounds: what is unpacked, a line, nesting, YAML's aliases."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from pccd_workflows.core.errors import InputError

CHUNK = 1 << 20
"""Bytes read at a time."""
MAX_LINE = 1 << 26
"""Most bytes of a line: a record of some 10^5 atoms."""
MAX_YAML = 1 << 20
"""Most bytes of a YAML file; ours have a few thousand, a list of 10,000 sets has 200,000."""
MAX_RATIO = 200
"""Most that a compressed file may grow; crystals as text grow 3 to 20 times, zeros 1000 times."""
ALWAYS_UNPACKED = 1 << 28
"""Bytes that any compressed file may unpack to."""
COMPRESSIONS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


class Allowance:
    """What a compressed file may still unpack to, all its members together.

    Parameters
    ----------
    size
        Bytes of the file on the disk.
    name
        Of the file.
    """

    def __init__(self, size: int, name: str) -> None:
        self._left = max(MAX_RATIO * size, ALWAYS_UNPACKED)
        self._name = name

    def take(self, size: int) -> None:
        """Count bytes that were unpacked.

        Raises
        ------
        InputError
            They are more than any honest file of this size holds.
        """
        self._left -= size
        if self._left < 0:
            raise InputError(
                f"{self._name} unpacks to more than {MAX_RATIO} times its size: it is not read any "
                "further; give what it holds unpacked."
            )


class _Metered(io.RawIOBase):
    """A stream that unpacks, and counts."""

    def __init__(self, stream: IO[bytes], allowance: Allowance) -> None:
        super().__init__()
        self._stream = stream
        self._allowance = allowance

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        here = self.tell()
        target = here + offset if whence == io.SEEK_CUR else offset
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known before everything is unpacked")
        self._allowance.take(max(0, target - here))  # what is skipped is unpacked, too
        return self._stream.seek(target)

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._allowance.take(len(data))
        buffer[: len(data)] = data
        return len(data)


def metered(stream: IO[bytes], allowance: Allowance) -> io.BufferedReader:
    """Return a stream that unpacks, within an allowance."""
    return io.BufferedReader(_Metered(stream, allowance), CHUNK)


def unpacked(raw: IO[bytes], path: Path) -> io.BufferedReader | IO[bytes]:
    """Return the content of an open file, unpacked where its name says that it is compressed."""
    if path.suffix not in COMPRESSIONS:
        return raw
    return metered(COMPRESSIONS[path.suffix](raw), Allowance(path.stat().st_size, str(path)))


def lines(stream: Any, name: str) -> Iterator[Any]:
    """Yield the lines of a stream (bytes or text), none of them without end.

    Raises
    ------
    InputError
        A line is longer than MAX_LINE.
    """
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InputError(f"{name} has a line of more than {MAX_LINE >> 20} MB.")
        yield line


def file_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked; OSError, EOFError and the like where it is damaged."""
    with path.open("rb") as raw:
        yield from lines(unpacked(raw, path), str(path))


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a file, unpacked; OSError, EOFError and the like where it is damaged.

    Raises
    ------
    InputError
        It has more than `limit` bytes.
    """
    content = bytearray()
    with path.open("rb") as raw:
        stream = unpacked(raw, path)
        while chunk := stream.read(CHUNK):
            content += chunk
            if len(content) > limit:
                raise InputError(f"{path} has more than {limit >> 20} MB.")
    return bytes(content)


def read_yaml(path: Path, what: str) -> Any:
    """Return what a YAML file holds.

    Parameters
    ----------
    what
        Kind of file, at the beginning of the message: Campaign file.

    Raises
    ------
    FileNotFoundError
        There is none.
    InputError
        One sentence: it cannot be read, is no YAML, or would need too much to read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_YAML + 1)
        if len(content) > MAX_YAML:
            raise InputError(f"{what} {path} has more than {MAX_YAML >> 20} MB.")
        text = content.decode("utf-8")
        # a few lines of aliases of aliases make gigabytes; nobody needs one here
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise InputError(f"{what} {path} uses YAML aliases (*name): write the values out.")
        return yaml.safe_load(text)
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}.") from None
    except RecursionError:
        raise InputError(f"{what} {path} nests its brackets too deeply.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise InputError(f"{what} {path} is not valid YAML{line}: {problem}.") from None
