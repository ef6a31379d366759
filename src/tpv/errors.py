"""The one family of errors tpv raises for something its user can mend."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec

SECRETS = (
    (re.compile(r"\bhf_\w{6,}"), "hf_…"),
    (re.compile(r"(?i)\b(bearer|basic)\s+\S+"), r"\1 …"),
    (re.compile(r"(?<=:)(//?)[^/@\s'\"]+@"), r"\1…@"),  # a path made of an address has one slash
)
SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|_key|apikey)$")  # of an environment variable
JOINERS = "\u200c\u200d"  # invisible, and part of how some languages are written
MOST = 4000  # characters of one part of a message: what it quotes may be a whole file


def plain(text: str) -> str:
    """Text on one line; what a terminal would obey, or nobody would see, is shown as an escape."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in JOINERS else one.encode("unicode_escape").decode() for one in text
    )


def scrub(text: str) -> str:
    """Text without anything that logs somebody in: values of the environment, hub tokens, names in addresses."""
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET_NAME.search(name):
            text = text.replace(value, "…")
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text


def _brief(text: str) -> str:
    return text if len(text) <= MOST else f"{text[:MOST]}…"


class TpvError(Exception):
    """A refusal that says what was expected, what was got and what to do, in one line.

    Args:
        what: what is wrong, naming the thing (file, task, argument).
        expected: what would have been accepted.
        got: what was there instead.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, fix: str | None = None) -> None:
        self.what, self.expected, self.got, self.fix = what, expected, got, fix
        parts = [what]
        if expected is not None:
            parts.append(f"expected {expected}")
        if got is not None:
            parts.append(f"got {got}")
        if fix is not None:
            parts.append(fix)
        super().__init__(plain("; ".join(_brief(scrub(part)) for part in parts)))


class IncompatibleError(TpvError):
    """Two things that belong to different models, shapes or initializations were combined."""


class DamagedFileError(TpvError):
    """A file is truncated, altered, or not one of ours."""


class UnknownNameError(TpvError, KeyError):
    """Nothing of that name is there; also a KeyError, as of a dict."""

    __str__ = Exception.__str__  # KeyError's would put the message in quotes


class CheckpointError(DamagedFileError):
    """The saved state of a training does not read, or belongs to another one."""


class TrainingError(TpvError):
    """Training cannot continue: a loss or a prompt is not finite."""


class TpvWarning(UserWarning):
    """It was done, but what came of it is probably not what was wanted."""


class CutWarning(TpvWarning):
    """Texts were longer than the limit and were truncated."""

    @classmethod
    def of(cls, cut: int, rows: int, about: str, limit: int) -> "CutWarning":
        """That so many of these rows were cut at `limit` tokens."""
        return cls(f"{cut} of {rows} texts of {about} are longer than {limit} tokens and were truncated")


_CUT = re.compile(r"(\d+) of (\d+) texts of (.+) are longer than (\d+) tokens")


def cut_summary(messages: Iterable[str]) -> str:
    """Messages of `CutWarning`s as one line, empty without any: of each split the most rows that any message counts.

    A few-shot sample is a part of its split, so that it does not hide what the whole split would say.
    """
    most: dict[tuple[str, str], tuple[int, int]] = {}
    for message in messages:
        if found := _CUT.match(message):
            cut, rows, about, limit = found.groups()
            most[about, limit] = max(most.get((about, limit), (0, 0)), (int(rows), int(cut)))
    return ", ".join(
        f"{about} {cut} of {rows} longer than {limit} tokens" for (about, limit), (rows, cut) in sorted(most.items())
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known ones, or all of them when none is near."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(match) for match in near)}?"
    return f"known: {', '.join(known)}"


def need(what: str, *packages: str, extra: str) -> None:
    """Refuse to go on without packages of an extra.

    Args:
        what: what needs them.

    Raises:
        TpvError: one is missing.
    """
    missing = next((package for package in packages if find_spec(package) is None), None)
    if missing is not None:
        raise TpvError(what, expected=f"the package {missing}", got="none", fix=f"pip install 'tpv[{extra}]'")
