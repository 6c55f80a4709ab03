"""Resumable states and hashes of weights; only safetensors and JSON are ever loaded.

A state is a folder ``state/step-N``, written atomically. The newest ones are kept, and a damaged state
is skipped in favour of the one before it. Sharded (FSDP2) tensors are gathered one at a time when
saved and distributed when loaded, so a state does not depend on the number of processes. Every
process must make the call; the first one writes, and chooses the state to load.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tldr.errors import CheckpointError
from tldr.files import files_below, sync
from tldr.records import write_json
from tldr.strict_json import parse_object


@dataclass(frozen=True)
class TrainingState:
    """The contents of a state besides modules and optimizers.

    Attributes:
        step: number of finished updates.
        part: 0 between updates; otherwise the progress within the next update.
        extra: any JSON data.
        tensors: further tensors (rollout, best weights); sharded ones are loaded unsharded.
    """

    step: int
    part: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name; names sort in the order of the states."""
        return f"step-{self.step:08d}" + (f"-{self.part:06d}" if self.part else "")


def save_state(
    folder: Path,
    state: TrainingState,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    keep: int = 2,
) -> Path:
    """Save ``state/step-N`` in a run's folder atomically, then delete all but the newest `keep` states.

    Later states, left over if the run resumed from an earlier one, are deleted too.

    Raises:
        CheckpointError: the disk is full or fails; earlier states are unchanged.
    """
    root = folder / "state"
    final = root / state.name
    writer = not dist.is_initialized() or dist.get_rank() == 0
    pieces = _pieces(modules, optimizers, state.tensors, writer)
    if not writer:
        for _ in pieces:  # takes part in the gathering
            pass
    else:
        try:
            _write(final, state, pieces, optimizers)
            _drop_old(final, keep)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(_partial(final), ignore_errors=True)
            raise CheckpointError(
                f"the state cannot be saved: {error}",
                where=final,
                remedy="free disk space and run again: it resumes from the previous state",
            ) from error
    if dist.is_initialized():
        dist.barrier()
    return final


def _write(
    final: Path,
    state: TrainingState,
    pieces: Iterable[tuple[str, dict[str, Tensor]]],
    optimizers: Mapping[str, Any],
) -> None:
    """Write all files to a temporary folder, sync them to disk, then rename the folder."""
    for stale in final.parent.glob("*.partial"):
        shutil.rmtree(stale)
    partial = _partial(final)
    partial.mkdir(parents=True)
    files = {name: _write_tensors(partial / name, piece) for name, piece in pieces}
    groups = {name: optimizer.state_dict()["param_groups"] for name, optimizer in optimizers.items()}
    meta = {"step": state.step, "part": state.part, "extra": state.extra}
    meta |= {"param_groups": groups, "sha256": files}
    write_json(partial / _STATE, {"state": meta, "sha256": _digest(meta)})
    sync(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    sync(final.parent)


def _drop_old(newest: Path, keep: int) -> None:
    states = _states(newest.parent)
    for old in [state for state in states if state > newest] + [s for s in states if s <= newest][:-keep]:
        shutil.rmtree(old)


def load_state(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> TrainingState | None:
    """Load the newest intact state of a run's folder into modules and optimizers, bit for bit.

    Returns None if there is none. A damaged state is skipped with a warning.

    Raises:
        CheckpointError: the state is intact but belongs to another model or optimizer.
    """
    path = _newest_sound(folder / "state", next(iter(modules.values())))
    if path is None:
        return None
    meta, pieces = _read(path)
    _check_same(path, meta, pieces, modules, optimizers)
    for name, module in modules.items():
        _restore_module(module, pieces[_module_file(name)])
    for name, optimizer in optimizers.items():
        _restore_optimizer(optimizer, pieces[_optimizer_file(name)], meta["param_groups"][name])
    # Cloned, because loaded tensors are memory-mapped and old states are deleted.
    tensors = {name: tensor.clone() for name, tensor in pieces[_TENSORS].items()}
    return TrainingState(meta["step"], meta["part"], meta["extra"], tensors)


def _newest_sound(root: Path, module: nn.Module) -> Path | None:
    """The state to load; the first process chooses it and broadcasts it on the device of `module`."""
    chosen = [-1, 0]
    if not dist.is_initialized() or dist.get_rank() == 0:
        for path in reversed(_states(root)):
            try:
                meta, _ = _read(path, check=True)
            except (OSError, ValueError, SafetensorError) as error:
                message = f"{path} is damaged ({error}): skipped"
                warnings.warn(message, RuntimeWarning, stacklevel=3)
                continue
            chosen = [meta["step"], meta["part"]]
            break
    if dist.is_initialized():
        broadcast = torch.tensor(chosen, device=next(module.parameters()).device)
        dist.broadcast(broadcast, src=0)
        chosen = broadcast.tolist()
    step, part = chosen
    return None if step < 0 else root / TrainingState(step, part).name


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors, shared ones only under their first name; shards are gathered (all must call)."""
    return {name: gather(tensor) for name, tensor in _unique(module).items()}


_TENSORS = "tensors.safetensors"
_STATE = "state.json"


def _digest(meta: Mapping[str, Any]) -> str:
    """sha256 of figures as they are after they were written and read; it protects ``state.json`` itself."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(meta)), sort_keys=True).encode()).hexdigest()


def _partial(final: Path) -> Path:
    return final.with_suffix(".partial")


def _module_file(name: str) -> str:
    return f"module.{name}.safetensors"


def _optimizer_file(name: str) -> str:
    return f"optimizer.{name}.safetensors"


def _states(root: Path) -> list[Path]:
    """Finished states, oldest first."""
    return sorted(path for path in root.glob("step-*") if path.suffix != ".partial")


def _unique(module: nn.Module) -> dict[str, Tensor]:
    """State tensors, with tied ones only under their first name."""
    found: dict[object, str] = {}
    tensors = {}
    for name, tensor in module.state_dict().items():
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        place = local.untyped_storage().data_ptr()
        key = (place, local.storage_offset(), local.shape, local.stride()) if place else name
        if found.setdefault(key, name) == name:
            tensors[name] = tensor
    return tensors


def _learnt(module: nn.Module) -> dict[str, Tensor]:
    """The state tensors that training may change: all except frozen weights, which are reloaded anyway."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in _unique(module).items() if name not in frozen}


def gather(tensor: Tensor) -> Tensor:
    """The full tensor of one that may be sharded over processes (all must call)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def deal(saved: Tensor, like: Any) -> Tensor:
    """`saved`, which every process has in full (or already sharded), with the sharding of `like`."""
    if hasattr(like, "full_tensor") and not hasattr(saved, "full_tensor") and saved.shape == like.shape:
        from torch.distributed.tensor import distribute_tensor  # takes two seconds to import

        return distribute_tensor(saved.to(like.device), like.device_mesh, like.placements)
    return saved


def _pieces(
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    tensors: Mapping[str, Tensor],
    keep: bool,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """File names and contents on the CPU, generated so that only one file is in memory at a time.

    Without `keep` the contents are empty: the process only takes part in the gathering.
    """
    for name, module in modules.items():
        yield _module_file(name), _collected(_learnt(module), keep)
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()["state"]
        flat = {f"{i}.{key}": torch.as_tensor(v) for i, values in state.items() for key, v in _flat(values)}
        yield _optimizer_file(name), _collected(flat, keep)
    yield _TENSORS, _collected(tensors, keep)


def _flat(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The optimizer state of one weight; bitsandbytes nests its own tensors one level deeper."""
    for key, value in state.items():
        yield from _flat(value) if isinstance(value, Mapping) else [(key, value)]


def _collected(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    kept = {}
    for name, tensor in tensors.items():
        whole = gather(tensor)  # on the device, so one at a time
        if keep:
            kept[name] = whole.detach().cpu()
    return kept


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write one file and return its sha256; shared storage is copied, because safetensors refuses it."""
    alone, seen = {}, set()
    for name, tensor in tensors.items():
        alone[name], storage = tensor.contiguous(), tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            alone[name] = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
    save_file(alone, path)
    return _settled(path)


def _settled(path: Path) -> str:
    """Flush a file to disk and return its sha256."""
    sync(path)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, check: bool = False) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """A state's JSON and memory-mapped tensors; with `check` every file is compared with its sha256.

    Raises:
        OSError, ValueError, SafetensorError: the state is damaged.
    """
    written = parse_object((path / _STATE).read_bytes())
    meta: Any = written.get("state")
    if not isinstance(meta, dict) or written.get("sha256") != _digest(meta):
        raise ValueError(f"{_STATE} differs from what was written")
    for name, digest in meta["sha256"].items() if check else ():
        if _sha256(path / name) != digest:
            raise ValueError(f"{name} differs from what was written")
    if TrainingState(meta["step"], meta["part"]).name != path.name:
        raise ValueError(f"contains step {meta['step']}, part {meta['part']}")
    return meta, {name: load_file(path / name) for name in meta["sha256"]}


def _check_same(
    path: Path,
    meta: Mapping[str, Any],
    pieces: Mapping[str, Mapping[str, Tensor]],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
) -> None:
    """Compare everything before anything is changed."""
    wanted = {_module_file(name) for name in modules} | {_optimizer_file(name) for name in optimizers}
    same = {*pieces} == wanted | {_TENSORS}
    for name, module in modules.items():
        saved = pieces.get(_module_file(name), {})
        same = same and _shapes(saved) == _shapes(_learnt(module))
    for name, optimizer in optimizers.items():
        groups = meta["param_groups"].get(name, [])
        same = same and [g["params"] for g in groups] == [
            g["params"] for g in optimizer.state_dict()["param_groups"]
        ]
    if not same:
        raise CheckpointError(
            "the state belongs to another model or optimizer",
            where=path,
            remedy="resume with the original settings, or delete the run's state folder",
        )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


@torch.no_grad()
def _restore_module(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, live in _learnt(module).items():
        live.copy_(deal(saved[name], live))


def _restore_optimizer(
    optimizer: Optimizer, saved: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor | int]] = {}
    for name, tensor in saved.items():
        index, key = name.split(".", 1)
        value = deal(tensor.clone(), parameters[int(index)])
        counts = (
            value.dtype == torch.int64 and value.ndim == 0
        )  # bitsandbytes stores its step count as an int
        state.setdefault(int(index), {})[key] = int(value) if counts else value
    for group in groups:
        group["betas"] = tuple(group["betas"])  # JSON knows only lists
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, dtypes, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_module(module: nn.Module) -> str:
    """sha256 over a module's tensors: equal hashes mean bitwise equal weights."""
    return hash_tensors(full_state_dict(module).items())


def hash_folder(folder: Path) -> str:
    """sha256 over all tensors in a folder's safetensors files (a checkpoint's weights).

    Raises:
        CheckpointError: the folder has none, or one is damaged.
    """
    paths = files_below(folder, "*.safetensors")
    if not paths:
        raise CheckpointError("contains no safetensors file", where=folder)
    named = []
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                named += [(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"damaged weights: {error}", where=path, remedy="copy it again") from None
    return hash_tensors(named)


def write_done(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Mark a run as finished: write each output file's sha256 to ``DONE`` and delete the resumable states.

    Args:
        outputs: files, or folders with all their files, by name within `folder`.

    Raises:
        CheckpointError: an output is missing.
    """
    hashes: dict[str, str] = {}
    for output in outputs:
        path = folder / output
        files = files_below(path) if path.is_dir() else [path]
        if not files or not files[0].exists():
            raise CheckpointError("the stage did not write this output", where=path)
        hashes |= {file.relative_to(folder).as_posix(): _settled(file) for file in files}
    write_json(folder / "DONE", {"outputs": hashes})
    shutil.rmtree(folder / "state", ignore_errors=True)
    return hashes
