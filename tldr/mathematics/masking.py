"""Means, variances and whitening over real (unpadded) entries only."""

from __future__ import annotations

import torch
from torch import Tensor

from tldr.errors import UsageError


def real_entries(mask: Tensor, **tensors: Tensor) -> list[Tensor]:
    """Each tensor in float32 or wider, with its padded entries set to exactly 0.

    Padding is zeroed before any arithmetic, so invalid padding (NaN, inf) affects neither a result
    nor a gradient.

    Args:
        mask: bool, True on real entries.
        tensors: each of the mask's shape; errors use the keyword as its name.

    Raises:
        UsageError: the mask is not bool, or a shape differs from the mask's.
    """
    if mask.dtype != torch.bool:
        raise UsageError(
            f"mask is {mask.dtype}", where="mask", remedy="pass a bool mask, True on real entries"
        )
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise UsageError(
                f"shape {tuple(tensor.shape)} differs from the mask's {tuple(mask.shape)}",
                where=name,
                remedy="give every tensor the shape of the mask; nothing is broadcast",
            )
    return [widen(tensor).masked_fill(~mask, 0.0) for tensor in tensors.values()]


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it already is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def require_right_padded(mask: Tensor) -> None:
    """Refuse a mask (..., T) in which a real token follows a padded one.

    Raises:
        UsageError: the mask is left-padded or has a hole.
    """
    if (mask[..., 1:] & ~mask[..., :-1]).any():
        raise UsageError(
            "a real token follows a padded one",
            where="mask",
            remedy="right-pad responses: the episode ends at the last real token",
        )


def masked_mean(values: Tensor, mask: Tensor, *, count: Tensor | float | None = None) -> Tensor:
    """Mean over real entries; NaN if there are none, like `torch.mean` of an empty tensor.

    Args:
        values: float (...).
        mask: bool (...).
        count: divisor instead of this mask's number of real entries. With the whole batch's number,
            the results of its micro-batches add up to the batch's mean.

    Returns:
        float scalar.
    """
    (values,) = real_entries(mask, values=values)
    return values.sum() / (mask.sum() if count is None else count)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divisor: the number of real entries) over real entries; float scalar."""
    (values,) = real_entries(mask, values=values)
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale real entries to variance 1 and, with `shift_mean`, shift their mean to 0.

    Advantages are whitened with the shift, rewards without it (N+ details 24, 25; as in
    lm_human_preferences/utils/core.py `whiten`, including the 1e-8 under the root).

    Args:
        values: float (...).
        mask: bool (...).
        shift_mean: False scales around the mean and keeps the mean.

    Returns:
        float (...), 0 at padded entries.
    """
    (values,) = real_entries(mask, values=values)
    mean, var = masked_mean(values, mask), masked_var(values, mask)
    whitened = (values - mean) * torch.rsqrt(var + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)
