"""Make the embedded model: build its tokenizer and pretrain a small T5 from scratch.

    python tools/pretrain_mini.py --out src/tpv/mini/model          # about 25 minutes on 2 cores

Or make a relative of it, to port prompts to: another seed, a wider model, another tokenizer, a decoder-only one.

    python tools/pretrain_mini.py --out runs/models/seed8 --seed 8
    python tools/pretrain_mini.py --out runs/models/wide --seed 9 --width 192 --bpe 900
    python tools/pretrain_mini.py --out runs/models/causal --seed 10 --causal

Kill it at any moment; the same command continues from its last checkpoint, with fresh rows.

The mixture, as T5's own, is span corruption on unlabelled text plus tasks told apart by an
instruction. Instructions stand among random tokens, because that is what a soft prompt looks like to
the model. The six source tasks are in the mixture; the six targets are not, and no validation or test
text of any mini task is in any row of it. `rows()` is that stream; the tests walk it.
"""

import argparse
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import tpv
from tpv import mini
from tpv.mini import lexicon as lex
from tpv.mini import sentiment, topic
from tpv.models import CausalBackbone, Seq2SeqBackbone
from tpv.tasks import task_specs

SEED = 7
SENTINELS = 10
MOST_NOISE = 24  # random tokens around an instruction, at the most
MOST_NOISY = 0.5  # share of rows that have such tokens, at the most
INSTRUCTIONS = {
    "mnli": ("compare premise with hypothesis", "does the premise imply the hypothesis", "inference"),
    "qnli": ("does the sentence answer the question", "answered or not", "find the answer"),
    "dbpedia": ("kind of thing in the title", "category of this title", "ontology"),
    "trec": ("what is being asked", "question type", "kind of answer"),
    "sst2": ("sentiment of the movie", "opinion on the film", "movie feeling"),
    "yelp": ("sentiment of the place", "opinion on the restaurant", "place feeling"),
    "rating": ("stars of the review", "rating from one to five", "how many stars"),
    "first": ("first word", "repeat the first word", "how does it begin"),
    "second": ("second word", "repeat the second word", "what comes after the first"),
    "last": ("last word", "repeat the last word", "how does it end"),
    "both": ("word in both", "repeat what both have", "which word comes twice"),
    "new": ("new word", "which word was not there before", "repeat the new word"),
    "topic": ("topic of the word", "field of the word", "word topic"),
    "feeling": ("feeling of the word", "is the word nice", "word feeling"),
}
WEIGHTS = {
    "mnli": 7,
    "qnli": 7,
    "dbpedia": 1.5,
    "trec": 1,
    "sst2": 6,
    "yelp": 5,
    "rating": 1.5,
    "plain": 5,
    "first": 0.7,
    "second": 0.7,
    "last": 0.7,
    "both": 2,
    "new": 2,
    "topic": 0.4,
    "feeling": 1,
    "text": 3.5,
}
COMMON = frozenset(("a", "an", "the", "is", "in", "to", "of", "it", "be", "no", "not", "there"))
STARS = ("one", "two", "three", "four", "five")
SECTIONS = {
    "World": "politics",
    "Politics": "politics",
    "Sports": "sports",
    "Business": "business",
    "Sci/Tech": "technology",
    "Computers": "technology",
    "Science": "science",
    "Health": "health",
    "Education": "education",
    "Entertainment": "entertainment",
    "Family": "family",
    "Society": "society",
}
GRADES = ("very negative", "negative", "neutral", "positive", "very positive")


# --- what is held out -----------------------------------------------------------------------------
def normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def held_out() -> set[str]:
    """Every validation and test text of every mini task: its fields joined, normalised."""
    return {
        normalise(" ".join(fields.values()))
        for name in mini.GENERATORS
        for split in ("validation", "test")
        for fields, _ in mini.splits(name)[split]
    }


def leaks(fields: dict[str, str], forbidden: set[str]) -> bool:
    """Whether these fields joined, or any run of sentences in one of them, is a held-out text."""
    if normalise(" ".join(fields.values())) in forbidden:
        return True
    for text in fields.values():
        sentences = re.split(r"(?<=[.?:]) ", text)
        for start, stop in itertools.combinations(range(len(sentences) + 1), 2):
            if normalise(" ".join(sentences[start:stop])) in forbidden:
                return True
    return False


# --- the mixture ----------------------------------------------------------------------------------
def sentence(rng: Random) -> str:
    """Unlabelled text: the sources' own, and sentences in which words of one topic keep company."""
    kind = rng.randrange(6)
    if kind == 0:
        section = rng.choice(tuple(SECTIONS))
        one, two, three = topic.topical(rng, SECTIONS[section])
        return rng.choice(
            (
                f"the {section} page has a story about the {one} and the {two}.",
                f"{section} : the {one} and the {two} of {rng.choice(lex.NAMES)}, not the {three}.",
                f"she writes on {section} and knows every {one}, every {two} and one {three}.",
            )
        )
    if kind == 1:
        grade = rng.randrange(5)
        text = sentiment.graded_text(rng, grade, lex.PLACE_PARTS, rng.choice(lex.PLACE_WORDS))
        return rng.choice((f"a {GRADES[grade]} review said: {text}", f"{text} that is {GRADES[grade]}."))
    if kind == 2:
        kind_, (members, verb) = _science(rng)
        thing = rng.choice(lex.SCIENCE_VERBS[verb])
        return rng.choice(
            (
                f"every {rng.choice(members)} is one {kind_} and {verb} some {thing}.",
                f"some {kind_} {verb} {thing}, such as {rng.choice(members)}.",
            )
        )
    if kind == 3:
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 6)))
        return f"the word {word} was said by {rng.choice(lex.NAMES)} in {rng.choice(lex.YEARS)}."
    fields, _ = mini.GENERATORS[rng.choice(mini.SOURCES)](rng)
    return " ".join(fields.values())


def _science(rng: Random) -> tuple[str, tuple[tuple[str, ...], str]]:
    kind = rng.choice(tuple(lex.SCIENCE_KINDS))
    return kind, (lex.SCIENCE_KINDS[kind], rng.choice(tuple(lex.SCIENCE_VERBS)))


def row(rng: Random) -> tuple[str, dict[str, str], str, str]:
    """One row before the held-out check: `(kind, fields, input text, target text)`."""
    kind = rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
    specs = task_specs()
    if kind == "text":
        fields = {"text": sentence(rng)}
        return kind, fields, fields["text"], ""
    if kind in mini.SOURCES:
        spec = specs[f"mini/{kind}"]
        fields, label = mini.GENERATORS[kind](rng)
        return kind, fields, spec.template.format_map(fields), spec.labels[label]
    if kind == "rating":
        grade = rng.randrange(5)
        text = sentiment.graded_text(rng, grade, lex.PLACE_PARTS, rng.choice(lex.PLACE_WORDS))
        return kind, {"text": text}, f"sentence: {text}", STARS[grade]
    if kind == "topic":
        name = rng.choice(tuple(lex.TOPICS))
        word = rng.choice(lex.TOPICS[name])
        return kind, {"text": word}, f"word: {word}", name
    if kind == "feeling":
        label = rng.randrange(2)
        word = rng.choice(lex.OPINION[label])
        return kind, {"text": word}, f"word: {word}", ("negative", "positive")[label]
    if kind == "plain":  # no instruction: the input alone must not tell the task, or there is nothing to tune
        source = rng.choice(mini.SOURCES)
        fields, _ = mini.GENERATORS[source](rng)
        first = re.findall(r"\w+", next(iter(fields.values())))[0]
        return kind, fields, specs[f"mini/{source}"].template.format_map(fields), first
    if kind in ("both", "new"):  # comparing two fields word by word
        source = rng.choice(("mnli", "qnli"))
        fields, _ = mini.GENERATORS[source](rng)
        before, after = (re.findall(r"\w+", text) for text in fields.values())
        picked = [word for word in after if word not in COMMON and (word in before) == (kind == "both")]
        return kind, fields, specs[f"mini/{source}"].template.format_map(fields), picked[0] if picked else "nothing"
    # pointing at a word of some source's input: so that a format alone does not tell the task
    source = rng.choice(mini.SOURCES)
    fields, _ = mini.GENERATORS[source](rng)
    words = re.findall(r"\w+", " ".join(fields.values()))
    target = {"first": words[0], "second": words[1], "last": words[-1]}[kind]
    return kind, fields, specs[f"mini/{source}"].template.format_map(fields), target


def rows(seed: int | str = SEED) -> Iterator[tuple[str, dict[str, str], str, str]]:
    """The endless stream of pretraining rows, held-out texts removed."""
    rng, forbidden = Random(f"pretraining {seed}"), held_out()
    while True:
        candidate = row(rng)
        if not leaks(candidate[1], forbidden):
            yield candidate


# --- tokenizer ------------------------------------------------------------------------------------
SPECIAL = ["<pad>", "</s>", "<unk>"]


def vocabulary_texts() -> list[str]:
    """Text of the mini world that has all its words."""
    rng = Random("vocabulary")
    specs = [spec for name, spec in task_specs().items() if name.startswith("mini/")]
    texts = [text for spec in specs for text in (*spec.labels, spec.template)]
    texts += [phrase for phrases in INSTRUCTIONS.values() for phrase in phrases] + list(STARS)
    for generator in mini.GENERATORS.values():
        texts += [" ".join(generator(rng)[0].values()) for _ in range(4000)]
    texts += [text for _ in range(20000) if "the word" not in (text := sentence(rng))]
    return texts + [word for words in lex.TOPICS.values() for word in words] + list(lex.TOPICS)


def build_tokenizer(bpe: int | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer, lossless like T5's: Unigram, with whole words of the mini world and single characters for
    everything else.

    Args:
        bpe: byte pairs merged up to this many pieces instead, so that rarer words fall apart.
    """
    texts = vocabulary_texts()
    words = {word for text in texts for word in re.findall(r"[A-Za-z]{2,}|\d+", text)}
    characters = [chr(code) for code in range(33, 127)]
    pieces = [f"▁{word}" for word in sorted(words)] + ["▁", *(f"▁{c}" for c in "aiSw"), *characters]
    pieces += ["▁Sci/Tech", "▁not_entailment"]
    pieces = list(dict.fromkeys(pieces))
    # a word costs less than its characters; the scores only have to rank whole words first
    scored = [(piece, 0.0) for piece in SPECIAL]
    scored += [(piece, -2.0 if len(piece) > 1 else -10.0) for piece in pieces]
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)]
    tokenizer = Tokenizer(
        models.BPE(unk_token="<unk>") if bpe else models.Unigram(scored, unk_id=2, byte_fallback=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    if bpe:
        trainer = trainers.BpeTrainer(
            vocab_size=bpe, special_tokens=SPECIAL, initial_alphabet=["▁", *characters], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


# --- rows as ids ----------------------------------------------------------------------------------
def corrupt(ids: list[int], rng: Random, sentinels: list[int], eos: int) -> tuple[list[int], list[int]]:
    """Span corruption: spans of 1-3 tokens, about a fifth of the text, replaced by sentinels."""
    source, target, position, used = [], [], 0, 0
    while position < len(ids):
        if used < len(sentinels) and rng.random() < 0.12:
            length = rng.randrange(1, 4)
            source.append(sentinels[used])
            target += [sentinels[used], *ids[position : position + length]]
            position, used = position + length, used + 1
        else:
            source.append(ids[position])
            position += 1
    return [*source, eos], [*target, eos]


class Encoder:
    """Turns rows into `(input ids, target ids)`, with the instruction hidden among random tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int | str) -> None:
        self.tokenizer, self.rng = tokenizer, Random(f"noise {seed}")
        self.size = len(tokenizer) - SENTINELS
        self.noise = 0.0  # grows to 1 while training
        self.sentinels = list(range(self.size, len(tokenizer)))
        self.instructions = {kind: self.encode(phrases) for kind, phrases in INSTRUCTIONS.items()}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        backend = self.tokenizer.backend_tokenizer  # without the wrapper, which costs more than the work
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def __call__(self, batch: list[tuple[str, dict[str, str], str, str]]) -> list[tuple[list[int], list[int]]]:
        rng, eos = self.rng, 1
        sources, targets = self.encode([text for _, _, text, _ in batch]), self.encode([t for *_, t in batch])
        result = []
        for (kind, _, _, _), source, target in zip(batch, sources, targets, strict=True):
            instruction = rng.choice(self.instructions[kind]) if kind in self.instructions else []
            noisy = rng.random() < (0.8 if kind == "plain" else MOST_NOISY * self.noise)
            prefix = [rng.randrange(self.size) for _ in range(rng.randrange(MOST_NOISE + 1) if noisy else 0)]
            where = rng.randrange(len(prefix) + 1)
            prefix[where:where] = instruction
            if kind == "text":
                source, target = corrupt(source, rng, self.sentinels, eos)
            else:
                source, target = [*source, eos], [*target, eos]
            result.append((prefix + source, target))
        return result


def batches(encoder: Encoder, seed: int | str, size: int, pool: int = 16) -> Iterator[tuple[torch.Tensor, ...]]:
    """Padded batches, rows of like length together."""
    stream, rng = rows(seed), Random(f"pool {seed}")
    while True:
        encoded = sorted(encoder(list(itertools.islice(stream, size * pool))), key=lambda r: len(r[0]))
        order = list(range(pool))
        rng.shuffle(order)
        for index in order:
            part = encoded[index * size : (index + 1) * size]
            source = torch.zeros(size, max(len(s) for s, _ in part), dtype=torch.long)
            labels = torch.full((size, max(len(t) for _, t in part)), -100)
            for i, (s, t) in enumerate(part):
                source[i, : len(s)] = torch.tensor(s)
                labels[i, : len(t)] = torch.tensor(t)
            yield source, labels


def joined(source: torch.Tensor, labels: torch.Tensor, cue: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as a decoder-only model reads it: text, cue, target; only the target counts in the loss."""
    texts, targets = [], []
    for s, t in zip(source.tolist(), labels.tolist(), strict=True):
        text, target = [*s[: s.index(1)], *cue], [token for token in t if token != -100]
        texts.append(torch.tensor(text + target))
        targets.append(torch.tensor([-100] * len(text) + target))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(texts, batch_first=True), pad(targets, batch_first=True, padding_value=-100)


def build_model(vocab_size: int, width: int = 128, causal: bool = False) -> PreTrainedModel:
    """A model with random weights; heads have 32 dimensions."""
    if causal:
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=width,
                intermediate_size=3 * width,
                num_hidden_layers=4,
                num_attention_heads=width // 32,
                num_key_value_heads=width // 32,
                max_position_embeddings=512,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=1,
                tie_word_embeddings=True,
            )
        )
    config = T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_ff=4 * width,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=width // 32,
        d_kv=32,
        dropout_rate=0.1,
        feed_forward_proj="relu",
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    return T5ForConditionalGeneration(config)


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Exact match on validation texts under a plain instruction; for the log and the card only."""
    kind = Seq2SeqBackbone if model.config.is_encoder_decoder else CausalBackbone
    backbone = kind(model, tokenizer, "being trained")
    scores = {}
    for name in mini.GENERATORS:
        task = tpv.load_task(f"mini/{name}")
        nearest = {"inference": "mnli", "topic": "trec", "sentiment": "sst2"}[task.spec.family]
        instruction = INSTRUCTIONS.get(name, INSTRUCTIONS[nearest])[0]
        prompt = tpv.SoftPrompt.from_text(backbone, instruction)
        scores[name] = tpv.evaluate(backbone, task, prompt, "validation").exact_match
    model.requires_grad_(True)
    return scores


CARD = """---
license: apache-2.0
library_name: transformers
language: en
---

# tpv mini: a T5 small enough to ship

The model behind `tpv.load_backbone("mini")`: {parameters:,} parameters (encoder of 3 layers, decoder of 2, width 128,
4 heads, feed-forward 512, {tokens} tokens), in `transformers` format with its tokenizer. It exists so that tpv can be
tried, tested and taught with no network.

**What it is not.** It knows {words} words of a made-up miniature English and nothing else. Scores on it show how a
method behaves, not how well any real model does a real task.

## How it was made

From scratch, by `python tools/pretrain_mini.py` (seed {seed}, {steps:,} steps of {batch} rows, {minutes:.0f} minutes on
{threads} CPU threads), on a mixture as T5's own was:

- span corruption on unlabelled sentences of the miniature world, some of which mention the names of topics and grades
  of opinion in passing, as web text does;
- the six **source** tasks of `mini/` (mnli, qnli, dbpedia, trec, sst2, yelp), each announced by an instruction that
  stands among random tokens. The tasks as tpv gives them carry no instruction: a prompt has to supply it;
- small exercises on the same kinds of text: repeating a word by its place, words two fields share, the topic or feeling
  of a word, stars of a review;
- the source tasks' inputs among random tokens with *no* instruction, where the answer is the first word: so that the
  form of an input does not give the task away, and an untuned prompt does not do it.

The six **target** tasks (scitail, snli, ag_news, yahoo, imdb, sst5) are not in the mixture, and no validation or
test text of any of the twelve is in any row of it; a test of the repository walks the stream and checks.

## How it does

Exact match on validation texts under a plain instruction, without any tuning (a target gets the instruction of a
source of its family):

| task | exact match |
|---|---|
{scores}

Weights, sha256: `{digest}`
"""


RELATIVE = """---
license: apache-2.0
library_name: transformers
language: en
---

# A relative of tpv mini

{parameters:,} parameters, {tokens} tokens, trained from scratch as tpv's embedded model was, by
`python tools/pretrain_mini.py {options}`: {steps:,} of {planned:,} steps of {batch} rows, {minutes:.0f} minutes on
{threads} CPU threads. It exists to test `tpv port`, and knows {words} words of a made-up miniature English.

Exact match on validation texts under a plain instruction, without any tuning:

| task | exact match |
|---|---|
{scores}

Weights, sha256: `{digest}`
"""


def write_card(folder: Path, scores: dict[str, float], card: str = CARD, **facts: object) -> None:
    """The model card, every number of it measured."""
    weights = folder / "model.safetensors"
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    with safe_open(weights, "pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    (folder / "README.md").write_text(
        card.format(
            parameters=parameters,
            tokens=len(pieces) + SENTINELS,
            words=sum(piece.startswith("▁") and len(piece) > 2 for piece in pieces),
            scores="\n".join(f"| {name} | {score:.2f} |" for name, score in scores.items()),
            digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
            **facts,
        )
    )


# --- training -------------------------------------------------------------------------------------
class Checkpoint:
    """The state of a training, beside the model; replaced whole."""

    def __init__(self, folder: Path, **parts: object) -> None:
        self.path, self.parts = folder / "training.pt", parts

    def load(self) -> tuple[int, float]:
        """Steps and seconds so far."""
        with suppress(FileNotFoundError):
            state = torch.load(self.path, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            return state["step"], state["seconds"]
        return 0, 0.0

    def save(self, step: int, seconds: float) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        new = self.path.with_suffix(".new")
        torch.save(state | {"step": step, "seconds": seconds}, new)
        new.replace(self.path)


def train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> tuple[int, float]:
    """Train up to `args.steps` steps, from the last checkpoint if there is one; the steps done and their minutes.

    With `args.stop` the steps end there, at the learning rate that the whole training has at that point.
    """
    model.train()
    for module in model.modules():  # a model this small underfits: no dropout while it is made
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    table = model.get_input_embeddings().weight
    rest = [weight for weight in model.parameters() if weight is not table]
    rate = args.lr if args.causal else 3 * args.lr  # a T5's embeddings start at unit scale
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": [table], "lr": rate}], lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    warmup = 300
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 1.02 - step / args.steps)
    )
    checkpoint = Checkpoint(args.out, model=model, optimizer=optimizer, schedule=schedule)
    done, before = checkpoint.load()
    last = max(done, min(args.steps, args.stop or args.steps))
    seed = f"{args.seed} from {done}" if done else args.seed
    encoder = Encoder(tokenizer, seed)
    cue = encoder.encode(["x label:"])[0][len(encoder.encode(["x"])[0]) :]
    started, running = time.perf_counter() - before, 0.0
    stream = itertools.islice(batches(encoder, seed, args.batch), last - done)
    for step, (source, labels) in enumerate(stream, done + 1):
        encoder.noise = min(1.0, step / (0.6 * args.steps))
        if args.causal:
            ids, labels = joined(source, labels, cue)
            loss = model(input_ids=ids, labels=labels).loss  # padding comes last, where nothing sees it
        else:
            loss = model(input_ids=source, attention_mask=(source != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        running += loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {running / 100:.4f} {time.perf_counter() - started:.0f}s", flush=True)
            running = 0.0
            checkpoint.save(step, time.perf_counter() - started)
        if step % 1000 == 0:
            print(json.dumps(accuracy(model, tokenizer)), flush=True)
            model.train()
    return last, (time.perf_counter() - started) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8500)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--width", type=int, default=128, help="a multiple of 32")
    parser.add_argument("--bpe", type=int, help="train a BPE tokenizer with this many pieces instead")
    parser.add_argument("--stop", type=int, help="end after this step of the schedule")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    parser.add_argument("--causal", action="store_true", help="a Llama instead of a T5")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(args.bpe)
    model = build_model(len(tokenizer), args.width, args.causal)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    done, minutes = train(model, tokenizer, args)
    scores = accuracy(model, tokenizer)
    print(json.dumps(scores), flush=True)
    model.to(torch.float16 if args.half else torch.float32).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    if done == args.steps:
        (args.out / "training.pt").unlink(missing_ok=True)
    ours = (args.seed, args.width, args.bpe, args.causal, args.half) == (SEED, 128, None, False, False)
    said = {"seed": args.seed, "width": args.width, "bpe": args.bpe}
    flags = "--causal" * args.causal
    write_card(
        args.out,
        scores,
        CARD if ours else RELATIVE,
        seed=args.seed,
        options=" ".join([*(f"--{name} {value}" for name, value in said.items() if value is not None), flags]).strip(),
        steps=done,
        planned=args.steps,
        batch=args.batch,
        minutes=minutes,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
