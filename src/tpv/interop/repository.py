"""Prompts and vectors to and from repositories of the Hugging Face hub.

A repository holds one safetensors file a prompt or vector, as `save` writes them, and a model card made from them.
Nothing else is uploaded, and nothing else is downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from tpv import __version__
from tpv.errors import DamagedFileError, TpvError
from tpv.hub import hub_answers
from tpv.interop import card, scored
from tpv.interop.hub_errors import quiet, scrub, told
from tpv.outputs.scores import Scores
from tpv.prompts import storage
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, load_any
from tpv.prompts.matrix import PromptMatrix
from tpv.prompts.storage import SAFE, SEGMENT, SUFFIX, is_safe_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

CARD = "README.md"
LARGEST = 256 * 2**20  # bytes; far above any prompt, far below the weights of a model
LARGEST_CARD = 2**20


def push(
    repo_id: str,
    items: Mapping[str, PromptMatrix],
    *,
    private: bool = False,
    scores: Scores | Sequence[Scores] | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Put prompts and vectors into a repository, with a model card; the repository is made if need be.

    What the repository holds already stays, is replaced where a name is the same, and is described by the new card,
    too: its files are read for that. Front matter that somebody added to the card (a license, data sets) stays, and so
    do the scores of files that did not change; the text is written anew. All of it is one commit, or nothing.

    The path of a local model does not go along: of `/home/me/my-t5` only `my-t5` is said.

    Args:
        repo_id: `OWNER/NAME`.
        items: by name: `{"sst2": vector}` becomes `sst2.safetensors`. A `/` in a name makes a folder.
        private: make a new repository private; an existing one must be.
        scores: of `tpv.evaluate`, for the card. Each goes to the item that it was measured on, a vector's with the
            initialization it was added to; scores of other prompts are left out.
        revision: branch to push to; made if need be.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        TpvError: a name that is no repository or no file, no items, scores of none of them, a public repository where
            a private one is asked for, files or a card in it that tpv did not write, no network, no permission.
    """
    _check_repository(repo_id)
    _check_items(items)
    _check_revision(revision)
    if message is not None and not message.strip():
        raise TpvError("message of the commit", expected="some words", got=repr(message))
    listed = [scores] if isinstance(scores, Scores) else list(scores or ())
    _check_network()
    new = {name: _without_path(item) for name, item in items.items()}
    with quiet(), tempfile.TemporaryDirectory() as folder:
        api = _client()
        info, branch_is_there = _state(api, repo_id, revision)
        if info is not None and private and info.private is False:
            raise TpvError(
                f"repository {repo_id} is public",
                expected="a private one, as --private asks for",
                fix="make it private on the hub first, or push to another",
            )
        old, kept, old_scores = _content(api, repo_id, info, Path(folder)) if info is not None else ({}, {}, [])
        everything = {name: (old | new)[name] for name in sorted(old | new)}
        _check_apart(everything, repo_id)
        shown = scored.still_true(everything, old_scores, scored.scores_of(everything, listed))
        text = card.write_card(repo_id, everything, shown, _on_the_hub(api, everything.values()), kept)
        with told(repo_id, revision, writing=True):
            from huggingface_hub import CommitOperationAdd

            if info is None:
                api.create_repo(repo_id, private=private or None, exist_ok=True)  # None: what the owner's default is
            if revision is not None and not branch_is_there:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            files = {f"{name}{SUFFIX}": storage.saved_bytes(item) for name, item in new.items()} | {CARD: text.encode()}
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()],
                commit_message=message or f"{', '.join(new)[:60]}, with tpv {__version__}",
                revision=revision,
                parent_commit=info.sha if info is not None else None,  # refused if somebody pushed since we looked
            )
    return scrub(str(commit.commit_url))


def pull(repo_id: str, *, revision: str | None = None) -> dict[str, PromptMatrix]:
    """All prompts and vectors of a repository, by name: `sst2.safetensors` is `"sst2"`.

    Nothing but `*.safetensors` files is downloaded, and nothing is kept on disk.

    Args:
        repo_id: `OWNER/NAME`.
        revision: branch, tag or commit.

    Raises:
        TpvError: no such repository or revision, not for you to see, no network, no file of tpv in it.
        DamagedFileError: a file, which is named, that is damaged, too large or foreign, or whose name is no safe one.
    """
    return _pulled(repo_id, revision, card_too=False)[0]


def pull_scored(
    repo_id: str, *, revision: str | None = None
) -> tuple[dict[str, PromptMatrix], dict[str, list[scored.CardScore]]]:
    """What `pull` gives, and for each item its scores on the repository's card; a card that does not read has none.

    Raises:
        TpvError, DamagedFileError: as `pull` does.
    """
    items, scores = _pulled(repo_id, revision, card_too=True)
    return items, {name: [score for score in scores if score.file == name] for name in items}


# --- checks ---------------------------------------------------------------------------------------
def _check_repository(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        good = repo_id.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        raise TpvError(
            "name of a repository",
            expected="OWNER/NAME of letters, digits, '-', '_' and '.'",
            got=scrub(f"{repo_id!r:.80}"),
        )


def _check_revision(revision: str | None) -> None:
    if revision is not None and not revision.strip():
        raise TpvError("revision", expected="a branch, tag or commit", got=repr(revision))


def _check_network() -> None:
    if not hub_answers():
        raise TpvError(
            "the Hugging Face hub cannot be reached", fix="check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        )


def _check_items(items: Mapping[str, PromptMatrix]) -> None:
    if not items:
        raise TpvError("nothing to push", expected="at least one prompt or vector")
    for name, item in items.items():
        if not isinstance(name, str) or not is_safe_name(name):
            raise TpvError(
                f"name {scrub(f'{name!r:.80}')} of a file",
                expected=f"{SAFE}; without {SUFFIX}",
                fix="choose another: NAME=FILE on the command line",
            )
        if not isinstance(item, PromptMatrix):
            raise TpvError(
                f"{name!r} cannot be pushed", expected="a SoftPrompt or a TaskPromptVector", got=type(item).__name__
            )
    _check_apart(items, "what is pushed")


def _check_apart(names: Iterable[str], where: str) -> None:
    """Refuse names that a file system which ignores case would put into one file."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise TpvError(
                f"two names of {where} differ in case only", got=f"{other!r} and {name!r}", fix="rename one of them"
            )


def _without_path(item: PromptMatrix) -> PromptMatrix:
    """The same prompt or vector, its model called by its last name if it is a path on this machine."""
    name = item.model.name
    try:
        local = Path(name).exists() and "/" in name
    except (OSError, ValueError):
        local = False
    windows = PureWindowsPath(name)
    if not (local or name.startswith(("/", ".", "~")) or windows.drive or "\\" in name):
        return item
    model = item.model.model_copy(update={"name": windows.name or "a local model"})  # splits at both slashes
    if isinstance(item, SoftPrompt):
        return SoftPrompt(item._tensor, model, item.init, item.components)
    return TaskPromptVector(item._tensor, model, item.components)


# --- what is there --------------------------------------------------------------------------------
def _pulled(
    repo_id: str, revision: str | None, *, card_too: bool
) -> tuple[dict[str, PromptMatrix], list[scored.CardScore]]:
    """The items of a repository; with its card, if asked for, the scores that still hold."""
    _check_repository(repo_id)
    _check_revision(revision)
    _check_network()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        api = _client()
        with told(repo_id, revision):
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
        names = _file_names(info, repo_id)
        if not names:
            raise TpvError(
                f"repository {repo_id} holds nothing of tpv",
                expected=f"files {'*' + SUFFIX}",
                got=f"{len(info.siblings or ())} others",
            )
        has_card = card_too and any(
            file.rfilename == CARD and (file.size or 0) <= LARGEST_CARD for file in info.siblings or ()
        )
        _download(api, repo_id, info, [f"{name}{SUFFIX}" for name in names] + [CARD] * has_card, Path(folder))
        items = _read(repo_id, names, Path(folder))
        if not has_card:
            return items, []
        try:
            _, scores = _read_card(repo_id, Path(folder))
        except TpvError:  # somebody else's: it decides nothing about the files
            return items, []
        return items, scored.still_true(items, scores, ())


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name=card.LIBRARY, library_version=__version__)


def _state(api: HfApi, repo_id: str, revision: str | None) -> tuple[ModelInfo | None, bool]:
    """The repository before a push, None if it does not exist, and whether the branch exists.

    A branch that is not there begins where the main branch is.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    with told(repo_id, revision, writing=True):
        try:
            return api.model_info(repo_id, revision=revision, files_metadata=True), True
        except RevisionNotFoundError:
            return api.model_info(repo_id, files_metadata=True), False
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None, False


def _file_names(info: ModelInfo, repo_id: str) -> list[str]:
    """Names, without their ending, of the repository's safetensors files.

    Raises:
        DamagedFileError: a name that could lead out of a folder or that not every file system takes, a large file.
    """
    names = []
    for file in info.siblings or ():
        if not file.rfilename.lower().endswith(SUFFIX):
            continue
        name = file.rfilename[: -len(SUFFIX)]
        if not file.rfilename.endswith(SUFFIX) or not is_safe_name(name):
            raise DamagedFileError(
                f"repository {repo_id} holds a file at no safe name",
                expected="letters, digits, '-', '_' and '.'",
                got=scrub(f"{file.rfilename!r:.120}"),
                fix="ask its owner to rename it",
            )
        if file.size is not None and file.size > LARGEST:
            raise DamagedFileError(
                f"{file.rfilename} of {repo_id} is no file of tpv",
                expected=f"at most {LARGEST >> 20} MiB",
                got=f"{file.size >> 20} MiB",
            )
        names.append(name)
    _check_apart(names, f"repository {repo_id}")
    return sorted(names)


def _download(api: HfApi, repo_id: str, info: ModelInfo, files: Sequence[str], folder: Path) -> None:
    with told(repo_id, info.sha):
        api.snapshot_download(
            repo_id,
            revision=info.sha,
            allow_patterns=list(files),
            local_dir=folder / "files",
            cache_dir=folder / "cache",
        )


def _read(repo_id: str, names: Iterable[str], folder: Path) -> dict[str, PromptMatrix]:
    return {
        name: load_any(folder / "files" / f"{name}{SUFFIX}", called=f"{name}{SUFFIX} of {repo_id}") for name in names
    }


def _content(
    api: HfApi, repo_id: str, info: ModelInfo, folder: Path
) -> tuple[dict[str, PromptMatrix], dict[str, Any], list[scored.CardScore]]:
    """The items in a repository, and the parts of its card that do not come from them."""
    names = _file_names(info, repo_id)
    files = [f"{name}{SUFFIX}" for name in names]
    if any(file.rfilename == CARD for file in info.siblings or ()):
        files.append(CARD)
    if not files:
        return {}, {}, []
    _download(api, repo_id, info, files, folder)
    if CARD not in files:
        return _read(repo_id, names, folder), {}, []
    kept, scores = _read_card(repo_id, folder)
    return _read(repo_id, names, folder), kept, scores


def _read_card(repo_id: str, folder: Path) -> tuple[dict[str, Any], list[scored.CardScore]]:
    """The parts of a downloaded card that do not come from the files."""
    try:
        text = (folder / "files" / CARD).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{CARD} of {repo_id} does not read", got=str(error)) from None
    return card.read_card(text, f"{CARD} of {repo_id}")


def _on_the_hub(api: HfApi, items: Iterable[PromptMatrix]) -> list[str]:
    """Those models of the items that the hub has by that name."""
    found = []
    for name in sorted({item.model.name for item in items}):
        parts = PurePosixPath(name).parts
        if len(parts) == 2 and all(SEGMENT.fullmatch(part) for part in parts):
            try:
                if api.repo_exists(name):
                    found.append(name)
            except Exception:  # it cannot be told: then the card does not say it
                continue
    return found
