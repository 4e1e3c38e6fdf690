"""API keys: who may ask what. A file holds names, SHA-256 digests of keys, and scopes; the keys themselves are nowhere.

    web-shop: {sha256: 9f86d0..., scopes: [score]}

A key is 256 random bits (`seminar keys NAME`), so that a plain digest is enough. Keys are compared by digest and in
constant time with each entry; they are never logged and never repeated in an answer. The file is read again when it
changes; one that cannot be read leaves the former keys in force.
"""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from features.errors import SeminarError
from model.serve.refusals import Refused

log = logging.getLogger(__name__)
Scope = Literal["score", "read-sequence", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_bearer = HTTPBearer(auto_error=False, description="A key of the service's key file; none is needed where it has no file")
_FORMAT = "write `NAME: {sha256: 64 hex digits, scopes: [score, read-sequence, admin]}`, or use `seminar keys`"


@dataclass(frozen=True)
class Entry:
    """One key: its name, digest and scopes."""

    name: str
    digest: bytes
    scopes: frozenset[str]


class Keys:
    """The keys in force. Without a file everybody may do everything: then the service must be on loopback."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stamp: tuple[int, ...] | None = None
        self._entries: list[Entry] = []
        if file is not None:
            self._stamp, self._entries = _stamp(file), read(file)

    @property
    def configured(self) -> bool:
        """Whether keys are asked for."""
        return self._file is not None

    def check(self, given: str | None, scope: Scope) -> str:
        """The name of the key that was given ("" where none is needed); Refused where it must not do this."""
        if self._file is None:
            return ""
        self._reread(self._file)
        digest = hashlib.sha256((given or "").encode()).digest()
        found = None
        for entry in self._entries:  # all of them, whichever fits: the time says nothing
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        if found is None or given is None:
            problem = SeminarError(
                "Authorization", "Bearer ...", "is missing or unknown", "send a key of this service as a Bearer token"
            )
            raise Refused(401, problem, {"WWW-Authenticate": "Bearer"})
        if scope not in found.scopes:
            problem = SeminarError(
                "scope", scope, f"is not among those of the key {found.name!r}", "ask for one that has it"
            )
            raise Refused(403, problem)
        return found.name

    def _reread(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = read(file)
        except SeminarError as error:
            log.error("the former keys stay in force: %s", error)


def needs(scope: Scope) -> Callable[..., Awaitable[str]]:
    """A dependency that lets a request through whose key has the scope; its value is the key's name."""

    async def check(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> str:
        keys: Keys = request.app.state.keys
        return keys.check(given.credentials if given else None, scope)

    return check


def read(file: Path) -> list[Entry]:
    """The entries of a key file; SeminarError that names no key."""
    try:
        found = yaml.safe_load(file.read_text())
        entries = [
            Entry(str(name), bytes.fromhex(entry["sha256"]), frozenset(entry["scopes"])) for name, entry in found.items()
        ]
    except OSError as error:
        raise SeminarError("SEMINAR_API_KEYS", file, f"cannot be read ({error.strerror})", "name a file") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        raise SeminarError("SEMINAR_API_KEYS", file, "is no file of keys", _FORMAT) from None
    for entry in entries:
        if len(entry.digest) != 32 or not entry.scopes <= set(SCOPES):
            raise SeminarError("SEMINAR_API_KEYS", f"{file}: {entry.name}", "has no such digest or scopes", _FORMAT)
    return entries


def create(file: Path, name: str, scopes: list[Scope]) -> str:
    """Add a new key to a file (made if missing); the key, which nothing keeps."""
    former = {entry.name: entry for entry in read(file)} if file.exists() else {}
    if name in former:
        raise SeminarError("name", name, f"has a key in {file} already", "choose another, or remove it there")
    key = secrets.token_urlsafe(32)
    former[name] = Entry(name, hashlib.sha256(key.encode()).digest(), frozenset(scopes))
    rows = {e.name: {"sha256": e.digest.hex(), "scopes": sorted(e.scopes)} for e in former.values()}
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(yaml.safe_dump(rows, sort_keys=False))
    os.replace(aside, file)
    return key


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
