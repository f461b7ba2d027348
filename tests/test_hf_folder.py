"""A Hugging Face folder, in and out: transformers is the judge of both directions."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from weights import assert_same_weights, weights

from lorakit.hf_folder import load_folder, read_config, save_folder
from lorakit.lora import LoRAConfig, inject
from lorakit.model import Llama, ModelConfig, RopeScaling
from lorakit.text import Tokenizer

LLAMA3 = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                     original_max_position_embeddings=16)  # fmt: skip
STRETCHED = {"rope_type": "llama3", **dataclasses.asdict(LLAMA3)}
VARIANTS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "one key head a query head": {"num_key_value_heads": 4},
    "another theta": {"rope_theta": 500.0},
    "llama3 rope": {"rope_theta": 500.0, "rope_scaling": LLAMA3},
    "another epsilon": {"rms_norm_eps": 0.1},
}
RAW = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request, model) -> Llama:
    """The tiny model in another shape, its norms not all one."""
    net = Llama(dataclasses.replace(model.config, **request.param))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return net


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> Path:
    save_folder(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def change(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, edit) -> None:
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(state)
    save_file(state, path)


def theirs_of(model: Llama) -> transformers.LlamaForCausalLM:
    """transformers' model of the same shape and weights, by hand: no file in between."""
    values = dataclasses.asdict(model.config)
    rope = values.pop("rope_scaling")
    rope = ({"rope_type": "llama3"} | rope) if rope else {"rope_type": "default"}
    rope["rope_theta"] = values.pop("rope_theta")
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values, rope_parameters=rope))
    theirs.load_state_dict(model.state_dict())
    return theirs.eval()


def assert_same_answers(ours: Llama, theirs, tokens) -> None:
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (ours(tokens) - expected).abs().max() <= 1e-5 * expected.abs().max()


# Both directions


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_a_folder_that_transformers_saved_answers_the_same(
    variant, tokenizer, tokens, tmp_path, shard
):
    theirs = theirs_of(variant)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 or shard == "20KB"
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    tokenizer.save(tmp_path)
    ours, _ = load_folder(tmp_path)
    assert ours.config == variant.config
    assert_same_answers(ours, theirs, tokens)


def test_a_folder_that_we_saved_answers_the_same_in_transformers(
    variant, tokenizer, tokens, tmp_path
):
    save_folder(variant, tokenizer, tmp_path / "saved")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert_same_answers(variant, theirs, tokens)
    assert theirs.config.eos_token_id == tokenizer.eos_id
    assert theirs.config.pad_token_id == tokenizer.pad_id
    assert theirs.config.bos_token_id is None


def test_rotary_settings_are_saved_in_the_manner_of_transformers_4_and_of_5(
    model, tokenizer, tmp_path
):
    config = dataclasses.replace(model.config, rope_theta=500.0, rope_scaling=LLAMA3)
    save_folder(Llama(config), tokenizer, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (saved["rope_theta"], saved["rope_scaling"]) == (500.0, STRETCHED)
    assert saved["rope_parameters"] == {**STRETCHED, "rope_theta": 500.0}


def test_the_tokenizer_that_we_saved_is_the_same_in_transformers(folder, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = "<|start|>Two  words, 12 of them .\n<|end|>"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.eos_id


def test_there_and_back_every_bit_is_the_same(variant, tokenizer, tmp_path):
    save_folder(variant, tokenizer, tmp_path / "saved")
    ours, reader = load_folder(tmp_path / "saved")
    assert ours.config == variant.config
    assert_same_weights(ours, weights(variant))
    assert reader.encode("a <|end|>") == tokenizer.encode("a <|end|>")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_saved_as_it_is(model, tokenizer, tokens, tmp_path, dtype):
    save_folder(model.to(dtype), tokenizer, tmp_path / "saved")
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype == dtype
    ours, _ = load_folder(tmp_path / "saved", dtype=dtype)
    assert_same_weights(ours, weights(model))


def test_loading_converts_to_the_dtype_that_is_asked_for(folder, model):
    ours, _ = load_folder(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert_same_weights(ours, weights(copy.deepcopy(model).bfloat16()))
    assert ours.lm_head.weight is ours.model.embed_tokens.weight


# Memory


def test_every_parameter_can_train_and_a_tied_head_is_one_of_them_once(folder, model):
    ours, _ = load_folder(folder)
    assert all(p.requires_grad for p in ours.parameters())
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert len(list(ours.parameters())) == len(list(model.parameters()))


def test_training_in_place_never_reaches_the_file(folder):
    path = folder / "model.safetensors"
    before = path.read_bytes()
    ours, _ = load_folder(folder)
    for parameter in ours.parameters():
        parameter.data.add_(1)
    assert path.read_bytes() == before
    again, _ = load_folder(folder)
    assert not torch.equal(again.model.norm.weight, ours.model.norm.weight)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_of_the_right_dtype_are_mapped_and_not_copied(folder):
    ours, _ = load_folder(folder)
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(folder / "model.safetensors")):
            start, end = line.split()[0].split("-")
            mapped.append(range(int(start, 16), int(end, 16)))
    for name, parameter in ours.named_parameters():
        assert any(parameter.data_ptr() in pages for pages in mapped), name


def test_saving_over_the_folder_that_the_weights_are_mapped_from(folder, tokenizer):
    ours, _ = load_folder(folder)
    ours.model.norm.weight.data.add_(1)
    expected = weights(ours)
    save_folder(ours, tokenizer, folder)
    assert_same_weights(ours, expected)
    assert_same_weights(load_folder(folder)[0], expected)


def test_loading_leaves_the_compiler_alone(folder):
    code = (
        "import sys; from lorakit.hf_folder import load_folder; "
        f"load_folder({str(folder)!r}); print('torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


# config.json


def config_of(folder: Path, **fields) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(RAW | fields))
    return read_config(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 7.0, "rope_scaling": STRETCHED},
        {"rope_parameters": {**STRETCHED, "rope_theta": 7.0}},
        {"rope_theta": 7.0, "rope_scaling": STRETCHED, "rope_parameters": None},
    ],
    ids=["transformers 4", "transformers 5", "both"],
)
def test_rotary_settings_of_either_manner_are_read(tmp_path, fields):
    config = config_of(tmp_path, **fields)
    assert (config.rope_theta, config.rope_scaling) == (7.0, LLAMA3)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 7.0},
        {"rope_theta": 7.0, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    ],
)
def test_plain_rotary_settings_of_either_manner_are_read(tmp_path, fields):
    config = config_of(tmp_path, **fields)
    assert (config.rope_theta, config.rope_scaling) == (7.0, None)


def test_what_a_config_leaves_out_stands_at_transformers_default(tmp_path):
    ours, theirs = config_of(tmp_path), transformers.LlamaConfig(**RAW)
    for name in ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
                 "tie_word_embeddings", "head_dim"):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "qwen2"}, 'reads llama, and "qwen2" is another architecture'),
        ({"attention_bias": True}, "attention_bias=True is not read, only False is"),
        ({"mlp_bias": True}, "mlp_bias=True is not read"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not read, only 'silu' is"),
        ({"head_dim": 16}, "head_dim=16 is not read, only hidden_size / .* = 8 is"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope type "linear" is not read'),
        ({"rope_parameters": {"rope_type": "yarn"}}, 'rope type "yarn" is not read'),
        ({"rope_scaling": {"rope_type": "llama3"}}, "lacks 'factor'"),
        ({"num_attention_heads": 5}, "num_attention_heads=5"),
        ({"num_hidden_layers": "2"}, "a field is of another kind than it has to be: '<' not"),
        ({"rope_scaling": [8.0]}, "a field is of another kind than it has to be: 'list'"),
    ],
    ids=str,
)
def test_a_config_of_another_kind_is_refused_by_name(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, **fields)


def test_a_field_without_a_default_that_is_missing_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"config\.json lacks 'num_attention_heads'"):
        read_config(tmp_path)


def test_a_config_without_fields_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json holds no fields, but \[1\]"):
        read_config(tmp_path)


def test_a_folder_without_a_config_is_no_model_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no Hugging Face model folder: it has no config\.json"):
        load_folder(tmp_path)


# Weights that do not fit


def drop(name):
    return lambda state: state.pop(name)


def put(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop("model.norm.weight"), "lacks the tensor model.norm.weight"),
        (put("model.norm.weight", 31), r"model.norm.weight is \(31,\), its config says \(32,\)"),
        (put("model.layers.2.mlp.up_proj.weight", 48, 32), "holds model.layers.2.mlp.up_proj"),
        (put("model.layers.0.self_attn.q_proj.bias", 32), "holds .*q_proj.bias, for which"),
        (
            lambda state: state.update({"model.norm.weight": torch.ones(32).int()}),
            "model.norm.weight is torch.int32, and weights are floats",
        ),
    ],
    ids=["missing", "misshaped", "a layer too many", "a bias", "whole numbers"],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder, edit, message):
    rewrite(folder, edit)
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


def test_an_untied_model_without_its_head_is_refused(folder):
    change(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lacks the tensor lm_head\.weight"):
        load_folder(folder)


@pytest.mark.parametrize(
    "edit",
    [put("lm_head.weight", 61, 32), put("model.layers.0.self_attn.rotary_emb.inv_freq", 4)],
    ids=["a copy of the tied head", "rotary frequencies"],
)
def test_what_older_folders_hold_besides_is_passed_over(folder, model, edit):
    rewrite(folder, edit)
    assert_same_weights(load_folder(folder)[0], weights(model))


def test_pickled_weights_are_refused_with_the_way_out(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin\) are not read.* save_pretrained"):
        load_folder(folder)


def test_truncated_weights_are_refused_by_name(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or damaged"):
        load_folder(folder)


def test_a_missing_shard_is_refused_by_name(model, tokenizer, tmp_path):
    theirs_of(model).save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer.save(tmp_path)
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-\d+\.safetensors is missing or damaged"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/../../model.safetensors"]
)
def test_a_shard_outside_of_the_folder_is_refused_by_name(folder, shard):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"model\.norm\.weight is in '{shard}', which leaves the"):
        load_folder(folder)


def test_shards_that_are_links_are_read_as_the_hubs_cache_keeps_them(model, tokenizer, tmp_path):
    theirs_of(model).save_pretrained(tmp_path / "cache", max_shard_size="20KB")
    tokenizer.save(tmp_path / "cache")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted((tmp_path / "cache").iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    assert_same_weights(load_folder(tmp_path / "cache")[0], weights(model))


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_of_another_kind_is_refused(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"index\.json has no weight_map from tensors to files"):
        load_folder(folder)


# Saving


def test_a_model_with_adapters_is_not_saved_as_a_base(model, tokenizer, tmp_path):
    inject(model, LoRAConfig())
    with pytest.raises(ValueError, match=r"holds 14 adapters .*merge_and_unload.*save_adapter"):
        save_folder(model, tokenizer, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["notes.txt", "config.json", "model.safetensors"])
def test_a_folder_that_holds_something_else_is_left_alone(model, tokenizer, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"is not an earlier save .*: name another folder"):
        save_folder(model, tokenizer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_earlier_save_beside_other_files_is_left_alone(folder, model, tokenizer):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not an earlier save \(notes\.txt\)"):
        save_folder(model, tokenizer, folder)


def test_an_earlier_save_gives_way_as_a_whole(folder, model, tokenizer):
    model.model.norm.weight.data.add_(1)
    save_folder(model, tokenizer, folder)
    assert_same_weights(load_folder(folder)[0], weights(model))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_error_while_saving_leaves_the_earlier_save(folder, model, tokenizer, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(Tokenizer, "save", fail)
    model.model.norm.weight.data.add_(1)
    with pytest.raises(OSError, match="no space left"):
        save_folder(model, tokenizer, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_save_that_was_cut_between_two_renames_is_found_again(folder, model):
    folder.rename(folder.with_name(f".{folder.name}.lorakit-old"))
    assert_same_weights(load_folder(folder)[0], weights(model))
