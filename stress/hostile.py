"""Reports whose names, settings and tasks are hostile text, looked at in Chromium with scripts on.

python stress/hostile.py --times 20 [--seed 0] [--keep FOLDER]

Each page gets another mixture of the texts below in every place that a name can have. Nothing may run, load, or become an
element; no text may push the page wider than the window, and the tables of `report.md` keep their columns. Exits with 1
if anything is otherwise, and says so where there is no Chromium.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from made_up import made_up, study

from tpv.reporting.study import FamilyInfo, write_report

OWN = "document.title='owned'"
TEXTS = [
    f"<script>{OWN}</script>",
    f'"><img src=x onerror="{OWN}">',
    f"'><svg/onload={OWN}>",
    f"</title><script>{OWN}</script>",
    f"</style></table></svg><script>{OWN}</script>",
    f"]]>--><script>{OWN}</script><!--",
    "<!-- ",
    "{{ 7 * 7 }}{% raw %}",
    f"javascript:{OWN}",
    "<link rel=stylesheet href=http://evil.invalid/x.css>",
    "<iframe src=http://evil.invalid/x></iframe>",
    "<base href=http://evil.invalid/>",
    "<meta http-equiv=refresh content='0;url=http://evil.invalid/'>",
    "url(http://evil.invalid/x.png)",
    "\u202esdrawkcab\u2066",
    "\u200f\u061cright",
    "\0nul\x1b[2J\x07",
    "a|b\nc\r\n| d | e |\u2028f",
    "`code` **bold** [link](javascript:alert(1)) ![img](http://evil.invalid/x.png)",
    "x" * 100_000,
    "\u5b57" * 3_000,
    "word " * 20_000,
    "&lt;script&gt;&amp;&#60;",
    r"$\frac{1}{%} \input{/etc/passwd} ^^5c_#~",
    "\U0001f469\u200d\U0001f4bb e\u0301" * 50,
    "https://user:pass@evil.invalid/",
    "\n" * 50 + "tall",
    "-" * 400,
    "\ufeff\u00a0\u3000",
    "=HYPERLINK(1)",
]
WIDTHS = (500, 1280)  # pixels; a headless window is not narrower
MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, figure, svg, nav")
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + e.className);
document.documentElement.dataset.measured = [document.documentElement.scrollWidth <= innerWidth, wide.slice(0, 5),
  Math.round(document.documentElement.scrollHeight), innerWidth].join(" ");
</script>"""


def chromium() -> str | None:
    """A Chromium on this machine."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


@contextmanager
def proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A port that takes every request and answers none, and the requests."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    try:
                        asked.append(connection.recv(2000))
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def opened(page: Path, *options: str) -> tuple[str, str, list[bytes]]:
    """A page in Chromium: its document after scripts had their time, what was logged, and what was asked for."""
    with proxy() as (port, asked), tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                chromium() or "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                f"--user-data-dir={profile}",
                f"--proxy-server=http://127.0.0.1:{port}",
                "--proxy-bypass-list=<-loopback>",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--disable-extensions",
                "--enable-logging=stderr",
                "--virtual-time-budget=3000",
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), asked


class _Elements(HTMLParser):
    """Every element of a page that runs or loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "iframe", "object", "embed", "link", "base", "form", "input", "video", "audio"):
            self.found.append(tag)
        for name, value in attributes:
            address = name in ("href", "src", "xlink:href", "action", "http-equiv")
            if name.startswith("on") or (address and not (value or "").startswith(("#", "data:image/png;"))):
                self.found.append(f"{tag} {name}={value!r:.60}")


def write(folder: Path, seed: int) -> str:
    """A report of made-up scores in which every name is hostile; the name of its study."""
    rng = Random(seed)
    texts = iter(rng.sample(TEXTS, len(TEXTS)) * 3)
    rows, timings, predictions = made_up()
    about = study()
    names = {task: f"{next(texts)} {i}".replace("+", "_") for i, task in enumerate(about.tasks)}

    def hostile(words: str) -> str:
        return "+".join(" ".join(names.get(word, word) for word in part.split(" ")) for part in words.split("+"))

    rows, timings = (
        [
            replace(row, task=hostile(row.task), sources=tuple(map(hostile, row.sources)), method=hostile(row.method))
            for row in part
        ]
        for part in (rows, timings)
    )
    tasks = {names[task]: replace(info, name=names[task]) for task, info in about.tasks.items()}
    families = tuple(
        FamilyInfo(f"{next(texts)} {i}", tuple(map(hostile, family.sources)), tuple(map(hostile, family.targets)))
        for i, family in enumerate(about.families)
    )
    about = replace(
        about,
        name=next(texts),
        model=next(texts),
        tasks=tasks,
        families=families,
        made_with=next(texts),
        facts=[(f"{next(texts)} {i}", next(texts)) for i in range(8)],
    )
    write_report(folder, about, rows, timings, predictions)
    return about.name


def faults(folder: Path, browser: bool = True, widths: Sequence[int] = WIDTHS) -> list[str]:
    """What is wrong with a report of hostile names."""
    page = folder / "report.html"
    text = page.read_text(encoding="utf-8")
    found = []
    elements = _Elements()
    elements.feed(text)
    found += [f"element {one}" for one in elements.found]
    if bad := set(re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069\u200f]", text)):
        found.append(f"characters {sorted(bad)}")
    header = 0
    for number, line in enumerate((folder / "report.md").read_text(encoding="utf-8").split("\n"), 1):
        pipes = len(re.findall(r"(?<!\\)\|", line.replace("\\\\", "")))
        header = 0 if not line.startswith("|") else header or pipes
        if pipes != header:
            found.append(f"report.md line {number} has {pipes} bars, not {header}")
        if re.search(r"(?<!\\)<", line.replace("\\\\", "")):
            found.append(f"report.md line {number} has a <")
    if not browser:
        return found
    title = title_of(text)
    document, log, asked = opened(page, "--dump-dom")
    after = _Elements()
    after.feed(document)
    if title_of(document) != title or after.found:
        found.append(f"the document changed: title {title_of(document)!r:.80}, {after.found[:5]}")
    found += [f"console: {line[:200]}" for line in log.splitlines() if "CONSOLE" in line]
    found += [f"request: {request[:100]!r}" for request in asked if b"evil" in request]
    copy = folder / "measured.html"
    copy.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    for width in widths:
        document, *_ = opened(copy, "--dump-dom", f"--window-size={width},900")
        measured = re.search(r'data-measured="(\w+) ([^"]*)"', document)
        if measured is None or measured[1] != "true" or measured[2].split(" ")[0]:
            found.append(f"at {width} pixels: {measured[0] if measured else 'not measured'}")
    copy.unlink()
    return found


def title_of(text: str) -> str:
    """What is between the title's tags."""
    match = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    return html.unescape(match[1]) if match else ""


def main(times: int, seed: int, folder: Path) -> int:
    warnings.filterwarnings("ignore", "Glyph .* missing from font")
    browser = chromium() is not None
    failed = 0
    for number in range(times):
        place = folder / f"page-{number}"
        write(place, seed + number)
        for fault in (found := faults(place, browser)):
            print(f"page {number}: {fault}", flush=True)
        failed += bool(found)
    how = "in Chromium" if browser else "without a browser, since no Chromium was found"
    print(f"{times} pages of {len(TEXTS)} hostile texts {how}: {failed} with faults")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(arguments.times, arguments.seed, arguments.keep or Path(temporary)))
