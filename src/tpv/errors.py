"""The one family of errors tpv raises for something its user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class TpvError(Exception):
    """A refusal that says what was expected, what was got and what to do, in one line.

    Args:
        what: what is wrong, naming the thing (file, task, argument).
        expected: what would have been accepted.
        got: what was there instead.
        fix: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.expected, self.got, self.fix = what, expected, got, fix
        parts = [what]
        if expected is not None:
            parts.append(f"expected {expected}")
        if got is not None:
            parts.append(f"got {got}")
        if fix is not None:
            parts.append(fix)
        super().__init__(" ".join("; ".join(parts).split()))


class IncompatibleError(TpvError):
    """Two things that belong to different models, shapes or starts were put together."""


class DamagedFileError(TpvError):
    """A file is truncated, altered, or not one of ours."""


class CheckpointError(DamagedFileError):
    """The saved state of a training does not read, or belongs to another one."""


class TrainingError(TpvError):
    """Training cannot go on: a loss or a prompt stopped being finite."""


class TpvWarning(UserWarning):
    """Something worked, but what it gave is perhaps not what was wanted."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known ones, or all of them when none is near."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(match) for match in near)}?"
    return f"known: {', '.join(known)}"
