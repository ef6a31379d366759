"""What the hub's client says, told our way: one line, without secrets, and nothing printed in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tpv import errors
from tpv.errors import TpvError

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def scrub(text: str) -> str:
    """Text without anything that logs somebody in, the token that the hub's client keeps included."""
    from huggingface_hub import get_token

    token = get_token()
    return errors.scrub(text.replace(token, "…") if token else text)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub's client from printing: what is wrong we refuse ourselves, in one line."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    verbosity, shown = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()


@contextmanager
def told(repo_id: str, revision: str | None, writing: bool = False) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line, without secrets."""
    try:
        yield
    except TpvError:
        raise
    except Exception as error:  # its own errors, its HTTP library's and its storage's have no common base
        raise _refusal(repo_id, revision, writing, error) from None


def _refusal(repo_id: str, revision: str | None, writing: bool, error: Exception) -> TpvError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:  # a download wraps what the hub said
        cause = cause.__cause__
    answer = cause or error
    status = getattr(getattr(answer, "response", None), "status_code", None)
    said = scrub(_first_words(getattr(answer, "server_message", None) or ""))[:200] or None
    if isinstance(answer, GatedRepoError):
        return TpvError(f"repository {repo_id} is gated", fix=f"ask for access on its page, and {LOGIN}")
    if isinstance(answer, RevisionNotFoundError):
        return TpvError(f"repository {repo_id} has no revision {scrub(f'{revision!r:.60}')}")
    if status == 401 and get_token():
        return TpvError("the hub does not accept your token", got=said, fix=LOGIN)
    if status == 401 and writing:
        return TpvError(f"cannot push to {repo_id}: you are not logged in", fix=LOGIN)
    if status == 401 or isinstance(answer, RepositoryNotFoundError):
        fix = f"check the name; if it is private, {LOGIN}"
        return TpvError(f"repository {repo_id} does not exist, or is not yours to see", fix=fix)
    if status == 403:
        what = f"you may not write to {repo_id}" if writing else f"you may not read {repo_id}"
        return TpvError(what, got=said, fix="check the owner's name, and that your token has that permission")
    if status in (409, 412):
        return TpvError(f"repository {repo_id} was changed meanwhile", fix="push again")
    if status == 429:
        return TpvError("the hub takes no more requests from you now", fix="wait a few minutes")
    if status is not None:
        return TpvError(f"the hub refused {repo_id}", got=f"status {status}{f': {said}' if said else ''}")
    text = scrub(f"{type(error).__name__}: {_first_words(str(error))}")[:200]
    return TpvError(
        f"the exchange with the hub about {repo_id} failed", got=text, fix="check the network and try again"
    )


def _first_words(text: str) -> str:
    return " ".join(text.split())
