"""Rows of all requests through the model, in passes that mix prompts and clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.evaluation.answers import generate_rows, score_rows
from tpv.evaluation.bank import SharedPrompt
from tpv.models import Backbone, Tokens
from tpv.models.generation import Decoding
from tpv.serving.metrics import Metrics
from tpv.serving.problems import Refusal
from tpv.serving.queue import FairQueue, Rows, Waiting

PASS_SECONDS = 0.1  # what a pass may take: longer ones make others wait, shorter ones waste time between them
LEAST_POSITIONS = 512  # of a pass, however slow the model is
SMOOTHING = 0.3  # weight of the newest pass in the speed that is expected of the next
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scoring:
    """Rows whose label words are the same and whose prompts have the same length can share a pass."""

    labels: tuple[Tokens, ...]
    num_tokens: int
    kind = "predict"

    def run(
        self, backbone: Backbone, readers: Sequence[SharedPrompt], index: Sequence[int], sources: Sequence[Tokens]
    ) -> list[Any]:
        """The log-probabilities [C] of each row and what greedy decoding says."""
        log_probs, greedy = score_rows(backbone, readers, index, sources, self.labels, None)
        return list(zip(log_probs, greedy.tolist(), strict=True))

    def costs(self, sources: Sequence[Tokens]) -> list[int]:
        """Positions of each row."""
        return [self.num_tokens + len(row) for row in sources]


@dataclass(frozen=True)
class Writing:
    """Rows that are generated alike; a sample goes alone, since its draws depend on what it is drawn with."""

    decoding: Decoding
    num_tokens: int
    alone: object = None
    tell: Callable[[str], object] | None = None
    kind = "generate"

    def run(
        self, backbone: Backbone, readers: Sequence[SharedPrompt], index: Sequence[int], sources: Sequence[Tokens]
    ) -> list[Any]:
        """The text of each row."""
        return list(generate_rows(backbone, readers, index, sources, self.decoding, None, self.tell))

    def costs(self, sources: Sequence[Tokens]) -> list[int]:
        """Positions of each row."""
        more = self.decoding.max_new_tokens
        return [(self.num_tokens + len(row) + more) * self.decoding.num_beams for row in sources]


Group = Scoring | Writing


@dataclass(eq=False)
class _Asked:
    """What the engine keeps with the rows of a request."""

    reader: SharedPrompt
    sources: Sequence[Tokens]
    answer: asyncio.Future[list[Any]]
    found: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = [None] * len(self.sources)


class Engine:
    """A model, one thread that it runs in, and the queue before it.

    A pass begins as soon as the model is free and rows wait. The queue fills meanwhile, and passes grow with load.

    Args:
        most_rows: rows that may wait.
        timeout: seconds that a request may take.
        window: seconds to wait for more rows before the first pass of an idle model.
        most_positions: in a pass; by default as many as take about 0.1 s, 512 at least.
    """

    def __init__(
        self,
        backbone: Backbone,
        metrics: Metrics,
        *,
        most_rows: int = 4096,
        timeout: float = 30.0,
        window: float = 0.0,
        most_positions: int | None = None,
    ) -> None:
        self.backbone, self.metrics, self.timeout = backbone, metrics, timeout
        self._window, self._most = window, most_positions
        self.queue = FairQueue(most_rows)
        self._coming: dict[str, int] = {}
        self._speeds: dict[str, float] = {}
        self._model = ThreadPoolExecutor(1, "tpv-model")
        self._tokens = ThreadPoolExecutor(1, "tpv-tokens")
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._loop_task: asyncio.Task[None] | None = None
        self.draining = False
        self._blank = lru_cache(4096)(self._blank_of)
        metrics.watch("tpv_queue_rows", "Rows that wait.", lambda: float(self.queue.rows))
        metrics.watch("tpv_queue_positions", "Positions of rows that wait.", lambda: float(self.queue.positions))

    # --- life -----------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to answer; needs a running event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end; new requests are refused."""
        self.draining = True
        while self.queue.rows or self._coming or not self._idle.is_set():
            await asyncio.sleep(0.01)
        if self._loop_task is not None:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop_task
        self._model.shutdown()
        self._tokens.shutdown()

    async def prepared(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a function returns in the thread that tokenizes; a tokenizer is for one thread at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._tokens, function, *arguments)

    # --- asking ---------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def room(self, client: str, rows: int) -> Any:
        """Room in the queue for rows that are about to come.

        Raises:
            Refusal: there is none (429), or the server is about to end (503).
        """
        if self.draining:
            raise Refusal(503, "the server is about to stop", fix="try again", retry_after=1.0)
        if not self.queue.has_room(client, rows + sum(self._coming.values())):
            self.metrics.refused.inc(rows)
            raise Refusal(
                429,
                f"too many rows wait, {self.queue.rows}",
                expected=f"at most {self.queue.most_rows}",
                fix="try again after what Retry-After says, or send fewer rows at once",
                retry_after=min(self.timeout, self._wait()),
            )
        self._coming[client] = self._coming.get(client, 0) + rows
        try:
            yield
        finally:
            self._coming[client] -= rows
            if not self._coming[client]:
                del self._coming[client]

    def _wait(self) -> float:
        """Seconds until what waits now is answered, as far as one can tell."""
        speed = min(self._speeds.values(), default=float(LEAST_POSITIONS))
        return self.queue.positions / speed

    def submit(self, client: str, group: Group, reader: SharedPrompt, sources: Sequence[Tokens]) -> Waiting:
        """Let rows wait for the model; the caller holds `room` for them, and waits for `answers`."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        work = Waiting(client, group, group.costs(sources), _Asked(reader, sources, future))
        self.queue.add(work)
        self._wake.set()
        return work

    async def answers(self, works: Sequence[Waiting], timeout: float | None = None) -> list[list[Any]]:
        """The answers to the rows of each; rows of a request that nobody waits for any longer leave the queue.

        Raises:
            Refusal: it took too long (504).
        """
        limit = min(timeout or self.timeout, self.timeout)
        try:
            async with asyncio.timeout(limit):
                return [await work.about.answer for work in works]
        except TimeoutError:
            self.metrics.late.inc()
            raise Refusal(
                504, "the request took too long", expected=f"an answer in {limit:g} s", fix="send fewer rows at once"
            ) from None
        except asyncio.CancelledError:
            self.metrics.cancelled.inc()
            raise
        finally:
            for work in works:
                self.queue.drop(work)
                work.about.answer.cancel()

    async def written(
        self, client: str, group: Writing, reader: SharedPrompt, source: Tokens
    ) -> AsyncGenerator[str, None]:
        """The text after one row in pieces, as the model writes it; it stops when nobody reads on.

        Raises:
            Refusal: it took too long (504).
        """
        loop, gone = asyncio.get_running_loop(), threading.Event()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def tell(piece: str) -> None:
            if gone.is_set():
                raise _Gone
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        own = Writing(group.decoding, group.num_tokens, alone=tell, tell=tell)
        work = self.submit(client, own, reader, [source])
        work.about.answer.add_done_callback(lambda _: pieces.put_nowait(None))
        end = loop.time() + self.timeout
        try:
            while True:
                async with asyncio.timeout_at(end):
                    piece = await pieces.get()
                if piece is None:
                    await work.about.answer  # raises what the pass did
                    return
                yield piece
        except TimeoutError:
            self.metrics.late.inc()
            raise Refusal(504, "the request took too long", expected=f"an answer in {self.timeout:g} s") from None
        finally:
            gone.set()
            self.queue.drop(work)
            work.about.answer.cancel()

    async def without_text(self, reader: SharedPrompt, labels: tuple[Tokens, ...], blank: Tokens) -> Tensor:
        """Log-probabilities [C] of label words without a text, which contextual calibration subtracts."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._model, self._blank, reader, labels, blank)

    def _blank_of(self, reader: SharedPrompt, labels: tuple[Tokens, ...], blank: Tokens) -> Tensor:
        log_probs, _ = score_rows(self.backbone, [reader], [0], [blank], labels, None)
        return log_probs[0]

    # --- the loop -------------------------------------------------------------------------------------
    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self.queue.rows:
                self._wake.clear()
                await self._wake.wait()
                if self._window:
                    await asyncio.sleep(self._window)
            rows = self.queue.take(self._budget(self.queue.lead))
            if not rows:
                continue
            self._idle.clear()
            try:
                self._deliver(rows, await loop.run_in_executor(self._model, self._pass, rows))
            finally:
                self._idle.set()

    def _budget(self, group: Any) -> int:
        """Positions of the next pass, which is of this group."""
        if self._most is not None or group is None:
            return self._most or LEAST_POSITIONS
        enough = int(self._speeds.get(group.kind, 0.0) * PASS_SECONDS)
        return min(self.backbone.scoring_positions, max(LEAST_POSITIONS, enough))

    def _pass(self, rows: Rows) -> list[list[Any] | Exception]:
        """The answers to the rows of a pass, or what went wrong with them; in the model's thread."""
        begun = time.perf_counter()
        try:
            found: list[list[Any] | Exception] = [*self._together(rows)]
        except Exception as error:
            # whose fault it is shows when each goes alone
            found = [error] if len(rows) == 1 else [self._alone(work, part) for work, part in rows]
        self._measure(rows, time.perf_counter() - begun)
        return found

    def _alone(self, work: Waiting, part: range) -> list[Any] | Exception:
        try:
            return self._together([(work, part)])[0]
        except Exception as error:
            return error

    def _together(self, rows: Rows) -> list[list[Any]]:
        readers: dict[SharedPrompt, int] = {}
        index: list[int] = []
        sources: list[Tokens] = []
        for work, part in rows:
            place = readers.setdefault(work.about.reader, len(readers))
            index += [place] * len(part)
            sources += work.about.sources[part.start : part.stop]
        group: Any = rows[0][0].group
        with torch.inference_mode():
            said = group.run(self.backbone, list(readers), index, sources)
        self.metrics.pass_prompts.observe(len(readers))
        found, begin = [], 0
        for _, part in rows:
            found.append(said[begin : begin + len(part)])
            begin += len(part)
        return found

    def _measure(self, rows: Rows, seconds: float) -> None:
        group: Any = rows[0][0].group
        kind: str = group.kind
        positions = sum(sum(work.costs[part.start : part.stop]) for work, part in rows)
        speed, before = positions / max(seconds, 1e-6), self._speeds.get(kind)
        self._speeds[kind] = speed if before is None else before + SMOOTHING * (speed - before)
        self.metrics.passes.labels(kind).observe(seconds)
        count = sum(len(part) for _, part in rows)
        self.metrics.pass_rows.labels(kind).observe(count)
        self.metrics.rows.labels(kind).inc(count)

    @staticmethod
    def _deliver(rows: Rows, found: Sequence[list[Any] | Exception]) -> None:
        for (work, part), answers in zip(rows, found, strict=True):
            asked: _Asked = work.about
            if asked.answer.done():
                continue
            if isinstance(answers, Exception):
                asked.answer.set_exception(answers)
                continue
            asked.found[part.start : part.stop] = answers
            work.left -= len(part)
            if not work.left:
                asked.answer.set_result(asked.found)


class _Gone(TpvError):
    """Nobody reads what is generated."""

    def __init__(self) -> None:
        super().__init__("nobody reads what is generated")
