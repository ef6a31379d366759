"""Put secrets into the environment and into addresses, use tpv, and look for them in everything it wrote and said.

python stress/canaries.py

The commands run in this process, against a hub on this machine that repeats the login it is given in every error. Prints how
many commands, bytes of output and bytes of files were searched; exits with 1 if a secret is among them.
"""

from __future__ import annotations

import argparse
import http.server
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

SECRETS = {
    name: f"{prefix}Canary{number}x7Qz"
    for number, (name, prefix) in enumerate(
        {
            "HF_TOKEN": "hf_",
            "HUGGING_FACE_HUB_TOKEN": "hf_",
            "WANDB_API_KEY": "wandb",
            "AWS_SECRET_ACCESS_KEY": "aws",
            "in an address": "pass",
        }.items()
    )
}
ADDRESS = f"https://user:{SECRETS['in an address']}@127.0.0.1:1/x"
CONFIG = """
name = "canary"
experiments = ["sources", "similarity"]
model = {name = "mini", device = "cpu"}
prompt = {tokens = 2}
seeds = {inits = 2}
families = [{name = "f", sources = ["mini/sst2", "own.toml"]}]
limits = {train = 8, validation = 4, test = 6}
sources = {training = {steps = 1, batch_size = 2, select = "last"}}
run = {energy = false}
"""
TASK = """
name = "own"
fields = ["text"]
template = "{text}"
labels = ["not", "good"]
source = {kind = "files", train = "rows.csv"}
"""


class _Hub(http.server.BaseHTTPRequestHandler):
    """A hub that refuses everything and repeats the login."""

    def _refuse(self) -> None:
        said = f"no: {self.headers.get('Authorization')} for {self.path}".encode()
        self.send_response(200 if self.command == "HEAD" and self.path == "/" else 403)
        self.send_header("X-Error-Message", said.decode())
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _refuse

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hub() -> Iterator[str]:
    """The address of a hub that refuses, with a login in it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commands(work: Path) -> list[tuple[int | None, list[object]]]:
    """What is used, with the exit code it must end with, if that is known."""
    short = ["--tokens", 2, "--steps", 1, "--batch-size", 2, "--shots", 4]
    prompt, vector = work / "tuned" / "prompt.safetensors", work / "tuned" / "vector.safetensors"
    token = SECRETS["HF_TOKEN"]
    return [
        (0, ["tune", *short, "--task", "mini/sst2", "--out", work / "tuned"]),
        (0, ["tune", *short, "--train", work / "rows.csv", "--out", work / "own"]),
        (0, ["evaluate", prompt, "--task", "mini/sst2", "--predictions", work / "p.parquet"]),
        (0, ["predict", prompt, "--task", "mini/sst2", "a fine film"]),
        (0, ["vector", "show", prompt, vector]),
        (0, ["vector", "scale", vector, "--by", 2, "--out", work / "twice.safetensors"]),
        (0, ["export", prompt, "--peft", work / "adapter"]),
        (0, ["import", work / "adapter", "--out", work / "back"]),
        (0, ["plan", work / "c.toml", "--out", work / "run", "--no-estimate"]),
        (0, ["run", work / "c.toml", "--out", work / "run"]),
        (0, ["report", work / "run"]),
        (2, ["tune", *short, "--task", "mini/sst2", "--model", ADDRESS, "--out", work / "a"]),
        (2, ["tune", *short, "--task", "mini/sst2", "--model", token, "--out", work / "b"]),
        (
            2,
            [
                "tune",
                *short,
                "--task",
                "mini/sst2",
                "--model",
                "owner/private",
                "--revision",
                token,
                "--out",
                work / "c",
            ],
        ),
        (2, ["tune", *short, "--task", "sst2", "--out", work / "d"]),
        (2, ["tune", *short, "--task", "sst2", "--data-dir", ADDRESS, "--out", work / "e"]),
        (2, ["tune", *short, "--train", f"{ADDRESS}.csv", "--out", work / "f"]),
        (2, ["tune", *short, "--task", f"{ADDRESS}.toml", "--out", work / "g"]),
        (2, ["tune", *short, "--task", token, "--out", work / "h"]),
        (2, ["tune", *short, "--task", "mini/sst2", "--out", work / "rows.csv" / token]),
        (2, ["evaluate", f"{ADDRESS}.safetensors", "--task", "mini/sst2"]),
        (2, ["vector", "scale", vector, "--by", 2, "--out", f"/proc/{ADDRESS}.safetensors"]),
        (2, ["run", f"{ADDRESS}.toml"]),
        (2, ["run", work / "address.toml", "--out", work / "i"]),
        (2, ["run", work / "data.toml", "--out", work / "j"]),
        (2, ["report", ADDRESS]),
        (2, ["import", ADDRESS, "--out", work / "k"]),
        (2, ["import", work / "foreign", "--out", work / "l"]),
        (2, ["push", "owner/name", f"v={vector}", "--message", token]),
        (2, ["push", ADDRESS, f"v={vector}"]),
        (2, ["pull", "owner/name", "--out", work / "m"]),
        (2, ["pull", "owner/name", "--revision", token, "--out", work / "n"]),
        (2, ["tune", "--no-such-option", token]),
        (1, ["tasks", "crash"]),
    ]


def prepare(work: Path) -> None:
    """The files that commands read."""
    rows = "".join(f"the number {i} is a number,{['not', 'good'][i % 2]}\n" for i in range(20))
    (work / "rows.csv").write_text(f"text,label\n{rows}")
    (work / "own.toml").write_text(TASK)
    (work / "c.toml").write_text(CONFIG)
    (work / "address.toml").write_text(CONFIG.replace('"mini"', f'"{ADDRESS}"'))
    (work / "data.toml").write_text(f'data_dir = "{ADDRESS}"\n' + CONFIG.replace("mini/sst2", "sst2"))
    (work / "foreign").mkdir()
    (work / "foreign" / "adapter_config.json").write_text(
        f'{{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 1, "base_model_name_or_path": "{ADDRESS}"}}'
    )
    (work / "foreign" / "adapter_model.safetensors").write_bytes(
        (80).to_bytes(8, "little")
        + b'{"prompt_embeddings":{"dtype":"F32","shape":[1,4],"data_offsets":[0,16]}}'.ljust(80)
        + b"\0" * 16
    )


def crash(*_: object, **__: object) -> None:
    """A fault of ours whose message holds a secret."""
    raise RuntimeError(f"the token {os.environ['HF_TOKEN']} at {ADDRESS}")


def used(work: Path) -> int:
    """Run every command in a folder; how many told or kept a secret, or ended otherwise than they must."""
    import tpv.tasks
    from tpv import cli

    prepare(work)
    given = {
        work / name: (work / name).read_bytes() for name in ("address.toml", "data.toml", "foreign/adapter_config.json")
    }
    failed = said_bytes = 0
    load_task = tpv.tasks.load_task
    listed = commands(work)
    for expected, arguments in listed:
        tpv.tasks.load_task = crash if arguments[-1] == "crash" else load_task
        said = io.StringIO()
        sys.argv = ["tpv", *map(str, arguments)]
        with redirect_stdout(said), redirect_stderr(said):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        text = said.getvalue()
        said_bytes += len(text)
        for name, secret in SECRETS.items():
            if secret in text:
                failed += 1
                print(
                    f"{name} was told by: tpv {' '.join(map(str, arguments))}\n  {text[:500]}".replace(
                        secret, "<SECRET>"
                    )
                )
        if code != expected:
            failed += 1
            print(f"code {code}, not {expected}: tpv {' '.join(map(str, arguments))}\n  {text[:1000]}")
    kept = [path for path in work.rglob("*") if path.is_file() and path not in given]
    for path in kept:
        content = path.read_bytes()
        for name, secret in SECRETS.items():
            if secret.encode() in content:
                failed += 1
                print(f"{name} was written to {path.relative_to(work)}")
    total = sum(path.stat().st_size for path in kept)
    print(
        f"{len(listed)} commands, {len(SECRETS)} secrets: {said_bytes} characters of output and {total} bytes in {len(kept)} files "
        f"searched, {failed} failures"
    )
    return failed


def main() -> int:
    with tempfile.TemporaryDirectory() as place, hub() as address:
        home = Path(place) / "home"
        os.environ |= {name: value for name, value in SECRETS.items() if name.isupper()}
        os.environ |= {
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        os.environ.pop("HF_HUB_OFFLINE", None)
        work = Path(place) / "work"
        work.mkdir()
        return 1 if used(work) else 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
