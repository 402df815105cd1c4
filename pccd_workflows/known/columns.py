"""A file of named columns of numbers: compressed each by itself, mapped into memory, checked.

Layout: eight magic bytes, the length of the header (4 bytes, little endian), the header (JSON,
zlib), then the columns one after another. A column is decompressed when it is read and not
before, so that a file opens in the time its header takes. No pickle anywhere.
"""

import json
import lzma
import mmap
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import write_whole

Array = NDArray[Any]

MAGIC = b"PCCDcol1"
"""The last byte is the format's version."""
_LENGTH = struct.Struct("<I")
_START = len(MAGIC) + _LENGTH.size
DTYPES = ("uint8", "uint16", "uint32", "int32")


class ColumnsFile:
    """An open file of columns.

    Parameters
    ----------
    path
        Of a file that `write_columns` wrote.
    kind
        What it must hold, as given to `write_columns`.

    Raises
    ------
    InputError
        There is no such file, it is truncated, of another version or of another kind.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self._data = _mapped(path)
        if self._data[: len(MAGIC)] != MAGIC:
            what = "of another version of" if self._data[:7] == MAGIC[:7] else "not one of"
            raise InputError(f"{path} is {what} this package's data files: build it again.")
        try:
            (length,) = _LENGTH.unpack(self._data[len(MAGIC) : _START])
            header = json.loads(zlib.decompress(self._data[_START : _START + length]))
            found, self.header, self._columns = header["kind"], header["header"], header["columns"]
        except (struct.error, zlib.error, ValueError, KeyError, TypeError):
            raise InputError(f"{path} is damaged or cut off: build or copy it again.") from None
        self._first = _START + length
        if found != kind:
            raise InputError(f"{path} holds {found}, not {kind}.")
        end = self._first + max((o + n for _, _, o, n, _ in self._columns.values()), default=0)
        if len(self._data) != end:
            raise InputError(
                f"{path} is cut off: it has {len(self._data):,} of {end:,} bytes. Build or copy it "
                "again."
            )

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def read(self, name: str) -> Array:
        """Return a column; InputError if it is damaged or not there.

        Raises
        ------
        InputError
            The file is damaged, truncated or of another version.
        """
        if name not in self._columns:
            raise InputError(f"{self.path} has no column {name!r}.")
        dtype, shape, offset, length, checksum = self._columns[name]
        packed = self._data[self._first + offset : self._first + offset + length]
        if zlib.crc32(packed) != checksum:
            raise InputError(f"{self.path} is damaged (column {name!r}): build or copy it again.")
        raw = lzma.decompress(packed, format=lzma.FORMAT_RAW, filters=_filters(np.dtype(dtype)))
        return np.frombuffer(raw, dtype=dtype).reshape(shape)

    def text(self, name: str) -> list[str]:
        """Return a column that `pack_text` made."""
        return self.read(name).tobytes().decode().split("\n")


def write_columns(
    path: Path, kind: str, header: Mapping[str, Any], columns: Mapping[str, Array]
) -> Path:
    """Write columns to a file, whole or not at all; equal columns give equal bytes.

    Parameters
    ----------
    path
        Where to.
    kind
        What the file holds, in a word or two; `ColumnsFile` asks for it.
    header
        Small things beside the columns: whatever JSON can hold.
    columns
        Arrays of unsigned integers of 1, 2 or 4 bytes or of signed ones of 4 bytes.

    Raises
    ------
    InputError
        The file cannot be written there.
    """
    entries, blobs, offset = {}, [], 0
    for name, column in columns.items():
        array = np.ascontiguousarray(column)
        if array.dtype.name not in DTYPES:
            raise ValueError(f"Column {name!r} is of type {array.dtype}, use one of {DTYPES}.")
        little = array.astype(array.dtype.newbyteorder("<"))
        blob = lzma.compress(
            little.tobytes(), format=lzma.FORMAT_RAW, filters=_filters(array.dtype)
        )
        entry = [little.dtype.str, list(array.shape), offset, len(blob), zlib.crc32(blob)]
        entries[name] = entry
        blobs.append(blob)
        offset += len(blob)
    content = {"kind": kind, "header": dict(header), "columns": entries}
    text = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return write_whole(path, b"".join([MAGIC, _LENGTH.pack(len(text)), text, *blobs]))


def pack_text(lines: Iterable[str]) -> Array:
    """Return lines of text as a column."""
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def _filters(dtype: np.dtype[Any]) -> list[dict[str, int]]:
    """Return how a column is compressed: LZMA is told how wide its numbers are."""
    position = {1: 0, 2: 1, 4: 2}[dtype.itemsize]
    literal = {"lc": 3, "lp": 0} if position == 0 else {"lc": 0, "lp": position}
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "pb": position, "dict_size": 1 << 22, **literal}]


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise InputError(f"{path} cannot be read: {error}.") from None
