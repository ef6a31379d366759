"""Who may read and who may write."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tpv.errors import TpvError
from tpv.registry import told
from tpv.serving.problems import Refusal
from tpv.serving.settings import LOOPBACK
from tpv.tasks.spec import read_toml

ENVIRONMENT = "TPV_API_KEY"
SHORTEST = 12  # characters of a key
Right = Literal["read", "write"]


class KeyRecord(BaseModel):
    """A table of a file of keys.

    Attributes:
        key: the key itself. Give this or `sha256`.
        sha256: the key's hash in hexadecimal digits, so that the file holds no secret.
        rights: `read` to answer texts and list prompts, `write` to change prompts; writing includes reading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: Annotated[str, Field(min_length=SHORTEST, max_length=1000)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    rights: Annotated[tuple[Right, ...], Field(min_length=1)] = ("read",)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self

    @property
    def hash(self) -> bytes:
        return bytes.fromhex(self.sha256) if self.sha256 is not None else _hash(self.key or "")


@dataclass(frozen=True)
class Caller:
    """Who sent a request: whose turn in the queue it takes, and whether it may write."""

    name: str
    writes: bool


class ApiKeys:
    """The keys of a server. Without any, everybody who reaches it may read, and nobody may write.

    Args:
        records: by the name of the client that each is for.
    """

    def __init__(self, records: Mapping[str, KeyRecord] | None = None) -> None:
        self._known: Sequence[tuple[bytes, Caller]] = [
            (record.hash, Caller(name, "write" in record.rights)) for name, record in (records or {}).items()
        ]

    def __len__(self) -> int:
        return len(self._known)

    @classmethod
    def load(cls, path: Path | None = None) -> ApiKeys:
        """The keys in a file, and the one in the environment variable TPV_API_KEY, which may read and write.

        Raises:
            TpvError: a file that does not read, or a key that is too short.
        """
        records: dict[str, KeyRecord] = {}
        for name, values in (read_toml(path, "file of keys") if path is not None else {}).items():
            records[name] = _record(values, f"file of keys {path}: [{name}]")
        if os.environ.get(ENVIRONMENT):
            values = {"key": os.environ[ENVIRONMENT], "rights": ["read", "write"]}
            records[ENVIRONMENT] = _record(values, f"environment variable {ENVIRONMENT}")
        if path is not None and not records:
            raise TpvError(f"file of keys {path} is empty", expected='[NAME], key = "…", rights = ["read"]')
        return cls(records)

    def check(self, host: str) -> None:
        """Refuse to let others reach a server without keys.

        Raises:
            TpvError: there are none, and the server listens at an address that others reach.
        """
        if host not in LOOPBACK and not self._known:
            raise TpvError(
                f"a server at {host}, which others may reach",
                expected="keys: --keys FILE, or TPV_API_KEY",
                got="none",
                fix=f"make some, or listen at {LOOPBACK[0]}",
            )

    def caller(self, authorization: str | None, address: str) -> Caller:
        """Who sends a header `Authorization`; every key is compared, in the same time whichever fits.

        Raises:
            Refusal: no key or a wrong one (401).
        """
        if not self._known:
            return Caller(address, False)
        scheme, _, key = (authorization or "").partition(" ")
        given, found = _hash(key.strip()), None
        for known, caller in self._known:
            if hmac.compare_digest(known, given):
                found = caller
        if found is None or scheme.casefold() != "bearer":
            raise Refusal(
                401,
                "this server takes a key",
                expected="a header Authorization with the word Bearer and the key",
                got=_said(authorization),
            )
        return found


def _said(authorization: str | None) -> str:
    return "none" if authorization is None else "another one"


def _record(values: object, where: str) -> KeyRecord:
    try:
        return KeyRecord.model_validate(values)
    except ValidationError as error:
        # without what was there: it may be a key
        mistakes = [line.partition(", got ")[0] for line in told(error, KeyRecord)]
        raise TpvError(
            where, expected=f"key of {SHORTEST} characters or more, rights", got="; ".join(mistakes)
        ) from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
