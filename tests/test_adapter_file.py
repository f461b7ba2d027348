"""What an adapter's file is made of: told from shapes alone, and equal to the file to the byte."""

import dataclasses

import peft
import pytest
import torch
from adapter_files import hugging_face, parts
from safetensors.torch import load_file, save_file

from lorakit.adapter_file import adapter_bytes, adapter_file, base_in_words, read_values
from lorakit.adapters import save_adapter
from lorakit.files import write_json
from lorakit.fingerprint import remember_file
from lorakit.lora import LoRAConfig, inject
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.qlora import quantize_

TARGETS = {
    "q and v": ("q_proj", "v_proj"),
    "all linear": "all-linear",
    "one path": ("model.layers.1.mlp.up_proj",),
}
each_target = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
PATTERNS = {
    "none": {},
    "rank": {"rank_pattern": {"q_proj": 2, r"layers\.1\..*": 11}},
    "alpha": {"alpha_pattern": {"q_proj": 2.0}},
}


@pytest.fixture
def saved(perturb, tmp_path):
    """Saves adapters of a config on a model and gives the file's path."""

    def save(model, config):
        inject(model, config)
        perturb(model)
        return save_adapter(model, tmp_path / "adapter") / "adapter_model.safetensors"

    return save


@pytest.mark.parametrize("rank", [1, 5, 32])
@pytest.mark.parametrize("use_rslora", [False, True], ids=["plain", "rslora"])
@each_target
def test_the_size_is_known_before_training(model, saved, rank, use_rslora, targets):
    config = LoRAConfig(rank=rank, targets=targets, use_rslora=use_rslora)
    assert saved(model, config).stat().st_size == adapter_bytes(model.config, config)


@pytest.mark.parametrize("patterns", PATTERNS.values(), ids=PATTERNS)
def test_the_size_is_exact_where_layers_have_ranks_of_their_own(model, saved, patterns):
    config = LoRAConfig(rank=3, targets=("q_proj", "down_proj"), **patterns)
    assert saved(model, config).stat().st_size == adapter_bytes(model.config, config)


def test_the_size_is_exact_where_layers_have_two_digits(model, saved):
    deep = Llama(dataclasses.replace(model.config, num_hidden_layers=12, hidden_size=8))
    remember_file(deep, "f" * 16)
    config = LoRAConfig(rank=4)
    assert saved(deep, config).stat().st_size == adapter_bytes(deep.config, config)


@pytest.mark.parametrize("block", [16, 32])
def test_the_size_is_exact_over_4_bits_too(model, saved, block):
    quantize_(model, block=block, double=False)
    config = LoRAConfig(rank=3)
    size = saved(model, config).stat().st_size
    assert size == adapter_bytes(model.config, config, f"nf4/{block}/single")
    assert size > adapter_bytes(model.config, config)


def test_smollm2_at_rank_8_takes_9_8_megabytes():
    assert adapter_bytes(PRESETS["smollm2-135m"], LoRAConfig(rank=8)) == pytest.approx(9.8e6, 0.01)


@each_target
@pytest.mark.parametrize("patterns", PATTERNS.values(), ids=PATTERNS)
def test_shapes_alone_tell_what_the_files_header_tells(model, saved, targets, patterns):
    if targets == TARGETS["one path"]:
        patterns = {field: {".*": 2} for field in patterns}
    config = LoRAConfig(rank=3, targets=targets, **patterns)
    path = saved(model, config)
    found = parts(path)
    assert adapter_file(model.config, config) == found
    assert found.total == path.stat().st_size


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_saved_embeddings_are_pefts_two_matrices_of_vocabulary_by_width(model, tmp_path, tied):
    model = Llama(dataclasses.replace(model.config, tie_word_embeddings=tied))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peer = peft.get_peft_model(hugging_face(model), config)
    peer.save_pretrained(tmp_path / "whole", save_embedding_layers=True)
    path = tmp_path / "whole" / "adapter_model.safetensors"
    theirs = parts(path)
    ours = adapter_file(model.config, LoRAConfig(rank=2, targets=("q_proj",)), embeddings=True)
    matrix = 4 * model.config.vocab_size * model.config.hidden_size
    assert theirs.beside == ours.beside == {"embed_tokens": matrix, "lm_head": matrix}
    assert (theirs.A, theirs.B) == (ours.A, ours.B)
    # All that theirs lacks is the fingerprint.
    save_file(load_file(path), path, metadata={"format": "pt", "base_fingerprint": "0" * 16})
    assert path.stat().st_size == ours.total
    assert parts(path) == ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_read_bit_for_bit(model, saved, dtype):
    path = saved(model, LoRAConfig(rank=3))
    tensors = {key: t.to(dtype) for key, t in load_file(path).items()}
    tensors["base_model.model.z.lora_A.weight"] = torch.ones(2, 5)  # wide ones lie first
    save_file(tensors, path, metadata={"format": "pt"})
    found = read_values(path)
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor)


def test_the_same_adapter_makes_the_same_bytes(model, saved):
    path = saved(model, LoRAConfig(rank=2))
    first = path.read_bytes()
    for _ in range(5):
        save_adapter(model, path.parent)
        assert path.read_bytes() == first


def test_asking_again_with_embeddings_leaves_no_trace(model):
    config = LoRAConfig(rank=3, rank_pattern={"q_proj": 2})
    before = adapter_file(model.config, config)
    assert adapter_file(model.config, config, embeddings=True).total > before.total
    assert adapter_file(model.config, config) == before


@pytest.mark.parametrize(
    ("base", "words"),
    [("mini", "; it was trained over 'mini': load that base"), (None, ""), ("", "")],
)
def test_a_message_ends_with_the_base_that_a_config_names(tmp_path, base, words):
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": base})
    assert base_in_words(tmp_path) == words
