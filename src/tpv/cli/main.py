"""The entry point: a user's mistake becomes one line on standard error and exit code 2."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import warnings

import typer

from tpv.errors import TpvError, plain, scrub
from tpv.memory import keep_memory


def _prepare() -> None:
    """Signals, streams and warnings of the process."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        typer.echo(f"warning: {plain(scrub(str(message)))}", err=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt  # so that a terminated command cleans up as an interrupted one does

    # Before torch is loaded: threads that wait by spinning make two processes on two cores twenty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, stop)
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"tpv\.|__main__")
    warnings.showwarning = show


def _run() -> int:
    """Run the command line; its exit code."""
    from tpv.cli.app import app

    try:
        code = app(standalone_mode=False) or 0
        if code == 130:
            typer.echo("interrupted", err=True)
        return int(code)
    except TpvError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        if message:  # a bare `tpv` has printed its help already
            typer.echo(f"error: {message} (try --help)", err=True)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:  # a full disk, a folder where a file is due: no reason for a traceback
        where = f" {error.filename}" if error.filename else ""
        typer.echo(scrub(f"error: cannot read or write{where}: {error.strerror or error}"), err=True)
        return 2
    except Exception:  # our fault: the traceback is for mending it, and must not tell what logs somebody in
        typer.echo(scrub(traceback.format_exc()), err=True)
        return 1


def main() -> None:
    """Run `tpv` and exit."""
    _prepare()
    sys.exit(_run())
