"""How commands report errors: what, where and what to do, and an exit code; tracebacks on request."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

import typer

from tldr.errors import LabError, Waiting
from tldr.files import disk_full, is_disk_full

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPTED = 130


def reports_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Decorator: print a command's errors on stderr and exit with 1 or 2, with 77 if it waits for people, or
    with 130 on Ctrl-C.

    With TLDR_DEBUG=1 in the environment the traceback is printed first.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Waiting as error:
            typer.echo(str(error))
            raise typer.Exit(error.exit_code) from None
        except LabError as error:
            _print_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except Exception as error:
            if is_disk_full(error):
                full = disk_full(error, remedy="free disk space and run the same command again")
                _print_error(str(full))
                raise typer.Exit(full.exit_code) from None
            _print_error(f"{type(error).__name__}: {error}\n  -> set TLDR_DEBUG=1 to see the traceback")
            raise typer.Exit(1) from None

    return wrapped


def _print_error(text: str) -> None:
    with suppress(OSError):  # a log on a full disk; the exit code tells it then
        if os.environ.get("TLDR_DEBUG") == "1":
            typer.echo(traceback.format_exc(), err=True)
        typer.secho(f"error: {text}", fg=typer.colors.RED, err=True)
