"""The one place that knows how a computation fails on its numbers rather than by a mistake of the program."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.stats import FitError
from statsmodels.tools import sm_exceptions

from tldr.errors import NonFiniteError

_FAILURES = (
    np.linalg.LinAlgError,
    ArithmeticError,
    FitError,
    sm_exceptions.PerfectSeparationError,
    sm_exceptions.MissingDataError,
)
"""Singular matrices, division by 0, overflow; fits that scipy or statsmodels give up."""
_WARNINGS = (
    sm_exceptions.ConvergenceWarning,
    sm_exceptions.HessianInversionWarning,
    sm_exceptions.IterationLimitWarning,
    sm_exceptions.PerfectSeparationWarning,
    sm_exceptions.SingularMatrixWarning,
)
"""What statsmodels says when it returns numbers that are no estimate."""
_LIBRARIES = ("numpy", "scipy", "statsmodels")
_ABOUT_DATA = re.compile(
    r"\b(nans?|infs?|infinite|finite|singular|zero-size|empty|too few|at least|degrees of freedom"
    r"|observations)\b",
    re.IGNORECASE,
)
"""A ValueError of these libraries that says so is about the numbers; any other is a mistake in the call."""


@contextmanager
def numeric_failures_told() -> Iterator[None]:
    """Inside, a computation that fails on its numbers raises `NonFiniteError` with the reason.

    Everything else (wrong types, missing keys, shapes that do not fit) is a mistake of the program and
    passes through as it is.

    Raises:
        NonFiniteError: a singular matrix, perfect separation, no convergence, too few rows, no variance,
            NaN or infinity, as numpy, scipy and statsmodels report them.
    """
    try:
        with warnings.catch_warnings():
            for kind in _WARNINGS:
                warnings.simplefilter("error", kind)
            yield
    except (*_FAILURES, *_WARNINGS) as error:
        raise _told(error) from error
    except ValueError as error:
        if not (_of_library(error) and _ABOUT_DATA.search(str(error))):
            raise
        raise _told(error) from error


def _told(error: Exception) -> NonFiniteError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return NonFiniteError(
        f"these numbers allow no estimate: {reason}",
        remedy="use more rows, or rows that differ",
    )


def _of_library(error: Exception) -> bool:
    """Whether the error was raised inside one of the libraries, not by an operation in our own code."""
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in _LIBRARIES
