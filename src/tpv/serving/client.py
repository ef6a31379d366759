"""The client of a server: `tpv.Client(url)`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2
import pyarrow as pa

from tpv.errors import TpvError
from tpv.outputs.scores import SEPARATOR
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.storage import saved_bytes

Texts = Sequence[str] | Sequence[Mapping[str, str]]
Prompts = str | Sequence[str] | None


class Client:
    """Asks a server that `tpv serve` runs.

    Args:
        url: of the server, `http://127.0.0.1:8000`.
        key: sent with every request; by default the environment variable TPV_API_KEY.
        timeout: seconds to wait for an answer.
        patience: seconds to go on trying while the server has no room (429), as it says when to.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 60.0, patience: float = 60.0) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise TpvError("url of a server", expected="http://HOST:PORT or https://…", got=f"{url!r:.100}")
        own = key if key is not None else os.environ.get("TPV_API_KEY")
        if own is not None and not (own.isascii() and own.isprintable()):
            raise TpvError("key of a server", expected="letters, digits and signs of ASCII", got="others")
        self.url, self._patience = url.rstrip("/"), patience
        headers = {"Authorization": f"Bearer {own}"} if own else {}
        try:
            self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)
        except httpx2.InvalidURL as error:
            raise TpvError(f"url {url!r:.100} of a server", got=str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- asking ---------------------------------------------------------------------------------------
    def predict(
        self,
        prompt: Prompts,
        texts: Texts,
        *,
        expression: Prompts = None,
        task: str | Mapping[str, Any] | None = None,
        digest: Prompts = None,
    ) -> pa.Table:
        """Label texts, as `tpv.predict` does.

        Returns:
            A table with a row per text: `source`, `predicted`, `probability`, `said`, `log_probs`; of several prompts
            also `prompt` before them, each text under every prompt, prompt by prompt.

        Args:
            prompt: the name of a prompt of the server, several names, or None.
            texts: whole inputs, read as they are; or rows, mappings of the task's fields.
            expression: in place of a prompt or besides: `"init:7 + 0.8*sst2"`, or several.
            task: in place of the prompts' own: a name, or a mapping with `template`, `labels` and so on.
            digest: of each prompt: an answer comes from this version or not at all.

        Raises:
            TpvError: what the server refuses, or that it does not answer.
        """
        results = self._answers("/v1/predict", prompt, expression, texts, {"task": task, "digest": digest})
        labels = {tuple(one["predictions"][0]["log_probs"]) for one in results}
        if len(labels) > 1:
            raise TpvError(
                "prompts of different label words in one table", fix="ask for each alone, or give one task for all"
            )
        (words,) = labels
        rows = [row for one in results for row in one["predictions"]]
        scores = pa.array([value for row in rows for value in row["log_probs"].values()], pa.float32())
        columns = self._columns(results, texts, several=_several(prompt, expression)) | {
            "predicted": pa.array([row["predicted"] for row in rows], pa.string()),
            "probability": pa.array([row["probability"] for row in rows], pa.float64()),
            "said": pa.array([row["said"] for row in rows], pa.string()),
            "log_probs": pa.FixedSizeListArray.from_arrays(scores, len(words)),
        }
        about = {"task": results[0]["task"], "labels": SEPARATOR.join(words)}
        return pa.table(columns).replace_schema_metadata(about)

    def generate(
        self,
        prompt: Prompts,
        texts: Texts,
        *,
        expression: Prompts = None,
        task: str | Mapping[str, Any] | None = None,
        digest: Prompts = None,
        tell: Callable[[str], object] | None = None,
        **decoding: Any,
    ) -> pa.Table:
        """Write text after texts, as `tpv.generate` does.

        Returns:
            A table with a row per text: `source`, `generated`; of several prompts also `prompt`.

        Args:
            prompt: the name of a prompt of the server, several names, or None.
            texts: see `predict`.
            expression: see `predict`.
            task: see `predict`.
            digest: see `predict`.
            tell: called with pieces of text as they come, where there is one text and one prompt.
            decoding: `max_new_tokens`, `num_beams`, `do_sample`, `temperature`, `seed`.

        Raises:
            TpvError: what the server refuses, or that it does not answer.
        """
        more = {"task": task, "digest": digest, **decoding}
        if tell is not None:
            return self._streamed(prompt, expression, texts, more, tell)
        results = self._answers("/v1/generate", prompt, expression, texts, more)
        said = pa.array([text for one in results for text in one["generated"]], pa.string())
        columns = self._columns(results, texts, several=_several(prompt, expression)) | {"generated": said}
        return pa.table(columns).replace_schema_metadata({"task": results[0]["task"]})

    # --- the library ----------------------------------------------------------------------------------
    def put(
        self,
        name: str,
        what: SoftPrompt | TaskPromptVector | str | PathLike[str],
        *,
        task: str | Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write a prompt or a vector to the server's library; it is served when this returns.

        Args:
            what: a prompt, a vector, the path of a file (a `Path`), or an expression over the library (a string).
            task: a name, or for an expression also a mapping; by default that of the vectors.

        Returns:
            What there is to know of it: `digest`, `version`, `task` and so on.

        Raises:
            TpvError: what the server refuses, or that it does not answer.
        """
        path = f"/v1/prompts/{quote(name)}"
        if isinstance(what, str):
            return self._json("PUT", path, json=_given({"expression": what, "task": task}))
        if isinstance(task, Mapping):
            raise TpvError("task of a file", expected="the name of a task", got="a mapping")
        try:
            content = saved_bytes(what) if isinstance(what, SoftPrompt | TaskPromptVector) else Path(what).read_bytes()
        except OSError as error:
            raise TpvError(f"{what} cannot be read", got=error.strerror) from None
        headers = {"Content-Type": "application/octet-stream"}
        return self._json("PUT", path, content=content, params=_given({"task": task}), headers=headers)

    def delete(self, name: str) -> None:
        """Delete a prompt or a vector of the server's library."""
        self._sent("DELETE", f"/v1/prompts/{quote(name)}")

    def prompts(self) -> list[dict[str, Any]]:
        """What there is to know of everything that is served."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/prompts")["prompts"]
        return found

    def prompt(self, name: str) -> dict[str, Any]:
        """What there is to know of a prompt or a vector."""
        return self._json("GET", f"/v1/prompts/{quote(name)}")

    # --- parts ----------------------------------------------------------------------------------------
    def _answers(
        self, path: str, prompt: Prompts, expression: Prompts, texts: Texts, more: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        body = _asked(prompt, expression, texts, more)
        found: list[dict[str, Any]] = self._json("POST", path, json=body)["results"]
        return found

    def _streamed(
        self, prompt: Prompts, expression: Prompts, texts: Texts, more: Mapping[str, Any], tell: Callable[[str], object]
    ) -> pa.Table:
        body = _asked(prompt, expression, texts, {**more, "stream": True})
        generated, task = [], ""
        with self._told(), self._http.stream("POST", "/v1/generate", json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            for name, data in _events(answer.iter_lines()):
                if name == "error":
                    raise TpvError(data["message"])
                if name == "start":
                    task = data["task"]
                if name == "piece":
                    tell(data["text"])
                if name == "end":
                    generated.append(data["generated"])
        columns = self._columns([], texts, several=False) | {"generated": pa.array(generated, pa.string())}
        return pa.table(columns).replace_schema_metadata({"task": task})

    @staticmethod
    def _columns(results: Sequence[Mapping[str, Any]], texts: Texts, *, several: bool) -> dict[str, Any]:
        sources = [text if isinstance(text, str) else "\t".join(text.values()) for text in texts]
        if not several:
            return {"source": pa.array(sources, pa.string())}
        names = [one["prompt"] for one in results for _ in sources]
        return {"prompt": pa.array(names, pa.string()), "source": pa.array(sources * len(results), pa.string())}

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._sent(method, path, **options)
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise TpvError(f"{self.url} is no server of tpv", got=f"{answer.text[:60]!r}") from None
        return found

    def _sent(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """The answer to a request; one that the server has no room for is sent again later."""
        end = time.monotonic() + self._patience
        while True:
            with self._told():
                answer = self._http.request(method, path, **options)
            wait = answer.headers.get("retry-after", "1")
            seconds = float(wait) if wait.isdigit() else 1.0
            if answer.status_code != 429 or time.monotonic() + seconds > end:
                break
            time.sleep(seconds)
        if not answer.is_success:
            raise _refusal(answer)
        return answer

    def _told(self) -> _Told:
        return _Told(self.url)


class _Told:
    """Turns a failing connection into one line."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, httpx2.TimeoutException):
            raise TpvError(f"server {self._url} does not answer in time", fix="try again") from None
        if isinstance(error, httpx2.HTTPError):
            raise TpvError(f"server {self._url} cannot be reached", got=str(error), fix="is `tpv serve` up?") from None


def _refusal(answer: httpx2.Response) -> TpvError:
    try:
        return TpvError(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return TpvError(f"server answers {answer.status_code}", got=f"{answer.text[:100]!r}")


def _several(prompt: Prompts, expression: Prompts) -> bool:
    return not (isinstance(prompt, str | None) and isinstance(expression, str | None)) or (
        prompt is not None and expression is not None
    )


def _asked(prompt: Prompts, expression: Prompts, texts: Texts, more: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request."""
    if isinstance(texts, str | Mapping):
        raise TpvError("texts to answer", expected="a sequence of texts", got="one text", fix="put it in a list")
    given = [text if isinstance(text, str) else dict(text) for text in texts]
    key = "rows" if given and isinstance(given[0], dict) else "texts"

    def plain(value: Prompts) -> Any:
        return value if value is None or isinstance(value, str) else list(value)

    values = {"prompt": plain(prompt), "expression": plain(expression), key: given, **more}
    if "digest" in values:
        values["digest"] = plain(values["digest"])
    return _given(values)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events: their names and data."""
    name = ""
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)
