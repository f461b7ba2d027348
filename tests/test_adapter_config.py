"""adapter_config.json says what PEFT needs, and nothing it says goes unheard."""

import copy
import json
import re

import peft
import pytest
from adapter_files import edit_config, refused
from torch import nn

from lorakit.adapter_config import config_json, exactly, read_adapter_config
from lorakit.adapters import load_adapter, save_adapter
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.lora_config import matches

CONFIG = LoRAConfig(rank=3, alpha=7.0, targets=("v_proj", "q_proj"), dropout=0.1, use_rslora=True)


@pytest.fixture
def folder(model, perturb, tmp_path):
    """A saved adapter; `model` has none."""
    adapted = copy.deepcopy(model)
    inject(adapted, CONFIG)
    perturb(adapted)
    return save_adapter(adapted, tmp_path / "adapter", base="tiny")


def test_every_field_is_written_in_pefts_manner(folder):
    text = (folder / "adapter_config.json").read_text()
    fields = {
        "alpha_pattern": {},
        "base_model_name_or_path": "tiny",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 7.0,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 3,
        "rank_pattern": {},
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": True,
    }
    assert text == json.dumps(fields, indent=2, sort_keys=True) + "\n"


def test_what_was_written_is_read_back(folder, model):
    config = read_adapter_config(folder, model)
    assert config.targets == ("q_proj", "v_proj")
    assert config.scale == CONFIG.scale
    assert config.dropout == CONFIG.dropout


# target_modules


def test_all_linear_is_written_as_last_names(model):
    inject(model, LoRAConfig())
    assert config_json(model, LoRAConfig(), "")["target_modules"] == [
        *("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    ]


class Twins(nn.Module):
    """Every module's last name is `proj`: the body's, the head's, and an embedding's."""

    def __init__(self):
        super().__init__()
        self.words = nn.ModuleDict({"proj": nn.Embedding(5, 4)})
        self.body = nn.ModuleDict({"proj": nn.Linear(4, 4)})
        self.head = nn.ModuleDict({"proj": nn.Linear(4, 5)})

    def get_output_embeddings(self):
        return self.head["proj"]


@pytest.mark.parametrize("targets", ["all-linear", ("proj",)])
def test_names_that_would_catch_more_become_full_paths(targets):
    model, peer = Twins(), Twins()
    paths = inject(model, LoRAConfig(targets=targets))
    written = config_json(model, LoRAConfig(targets=targets), "")["target_modules"]
    assert written == sorted(paths)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=written), peer)
    adapted = [n for n, m in peer.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert adapted == paths


@pytest.mark.parametrize(
    ("stored", "targets"),
    [
        (["q_proj", "v_proj"], ("q_proj", "v_proj")),
        (["model.layers.1.mlp.up_proj"], ("model.layers.1.mlp.up_proj",)),
        ("all-linear", "all-linear"),
        ("All-Linear", "all-linear"),
        (r".*\.1\..*q_proj", ("model.layers.1.self_attn.q_proj",)),
    ],
)
@pytest.mark.parametrize("carries", [False, True], ids=["plain", "adapted"])
def test_targets_come_as_names_paths_or_a_pattern(folder, model, stored, targets, carries):
    if carries:
        inject(model, CONFIG)
    edit_config(folder, target_modules=stored)
    assert read_adapter_config(folder, model).targets == targets


@pytest.mark.parametrize("pattern", ["q_proj", ".*q_pro", ".*embed_tokens"])
def test_a_pattern_has_to_match_the_whole_path_of_a_linear_layer(folder, model, pattern):
    edit_config(folder, target_modules=pattern)
    with refused(model, re.escape(f"target_modules={pattern!r} matches no linear layer")):
        load_adapter(model, folder)


# Fields


@pytest.mark.parametrize("field", ["peft_type", "r", "lora_alpha", "target_modules"])
@pytest.mark.parametrize("value", [..., None], ids=["absent", "null"])
def test_a_missing_field_is_named(folder, model, field, value):
    edit_config(folder, **{field: value})
    with refused(model, rf"adapter_config\.json lacks {field}"):
        load_adapter(model, folder)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("peft_type", "IA3", "only LORA"),
        ("use_dora", True, "magnitude"),
        ("bias", "all", "biases"),
        ("bias", "lora_only", "biases"),
        ("modules_to_save", ["lm_head"], "whole layers"),
        ("fan_in_fan_out", True, r"\(in, out\)"),
        ("layers_to_transform", [1], "full paths"),
        ("layers_to_transform", 0, "full paths"),
        ("layers_pattern", "layers", "full paths"),
        ("exclude_modules", ["lm_head"], "full paths"),
        ("init_lora_weights", "pissa", "base's own weights"),
        ("init_lora_weights", "pissa_niter_16", "base's own weights"),
        ("init_lora_weights", "olora", "base's own weights"),
        ("init_lora_weights", "corda", "base's own weights"),
        ("init_lora_weights", "loftq", "base's own weights"),
        ("init_lora_weights", "lora_ga", "base's own weights"),
        ("lora_bias", True, "does not know"),
        ("trainable_token_indices", [3], "does not know"),
        ("a_field_of_tomorrow", 1, "does not know"),
    ],
)
def test_a_field_that_is_not_plain_loras_is_refused_by_name(folder, model, field, value, reason):
    edit_config(folder, **{field: value})
    with refused(model, rf"{field}={re.escape(repr(value))} is not read: .*{reason}"):
        load_adapter(model, folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("r", "3", "r must be int, got '3'"),
        ("r", 0, "rank must be a whole number of at least 1, got 0"),
        ("lora_alpha", "7", "lora_alpha must be int or float, got '7'"),
        ("lora_alpha", -7, "alpha must be a number above 0, got -7"),
        ("lora_dropout", 1, "dropout must be .* got 1"),
        ("use_rslora", "false", "use_rslora must be bool, got 'false'"),
        ("target_modules", {"q_proj": 1}, "target_modules must be list or str"),
        ("target_modules", [], "targets is empty"),
        ("r", 4.0, r"r must be int, got 4\.0"),
        ("r", True, "r must be int, got True"),
        ("lora_alpha", True, "lora_alpha must be int or float, got True"),
        ("lora_alpha", 10**400, "lora_alpha must fit a float, got a number of 401 digits"),
        ("lora_alpha", float("inf"), "alpha must be a number above 0, got inf"),
        ("lora_dropout", float("nan"), "dropout must be .* got nan"),
        ("lora_dropout", 10**400, "dropout must be at least 0 and below 1"),
        ("target_modules", "*", r"target_modules: '\*' is no pattern"),
        ("target_modules", "(" * 5000, "is no pattern"),
        ("target_modules", "a{99999999999}", "is no pattern"),
        ("target_modules", ["q_proj", 3], "target_modules must be names, got 3 among them"),
        ("target_modules", [None], "target_modules must be names, got None among them"),
        ("target_modules", [""], "target '' matches no linear layer"),
        ("rank_pattern", [["q_proj", 4]], r"rank_pattern must be dict or NoneType, got \[\["),
        ("rank_pattern", {"q_proj": 0}, r"rank_pattern\['q_proj'\] must be a whole .* got 0"),
        ("rank_pattern", {"q_proj": True}, r"rank_pattern\['q_proj'\] must be int, got True"),
        ("rank_pattern", {"q_proj": None}, r"rank_pattern\['q_proj'\] must be int, got None"),
        ("rank_pattern", {"(": 4}, r"rank_pattern: '\(' is no pattern"),
        ("rank_pattern", {"(?i)q_proj": 4}, r"rank_pattern: '\(\?i\)q_proj' is no pattern"),
        ("rank_pattern", {"k_proj": 4}, "'k_proj' of rank or alpha matches none of the 4"),
        ("alpha_pattern", {"q_proj": "4"}, r"alpha_pattern\['q_proj'\] must be int or float, got"),
        ("alpha_pattern", {"q_proj": True}, r"alpha_pattern\['q_proj'\] must be .* got True"),
        ("alpha_pattern", {"q_proj": -1}, r"alpha_pattern\['q_proj'\] must be .* got -1"),
        ("alpha_pattern", {"q_proj": 10**400}, "alpha_pattern must fit a float, .* 401 digits"),
        ("target_modules", ["q_porj"], "'q_porj' matches no linear layer.*q_proj"),
        ("target_modules", ["lm_head"], "lm_head shares its weight"),
    ],
)
def test_a_wrong_value_is_refused_with_the_value(folder, model, field, value, message):
    edit_config(folder, **{field: value})
    with refused(model, message):
        load_adapter(model, folder)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_an_unknown_field_that_switches_nothing_on_is_no_matter(folder, model, value):
    edit_config(folder, a_field_of_tomorrow=value, peft_version="9.9", megatron_core="x")
    assert load_adapter(model, folder).rank == CONFIG.rank


@pytest.mark.parametrize("field", ["use_rslora", "lora_dropout", "bias", "init_lora_weights"])
def test_a_field_that_older_files_lack_stands_at_its_only_default(folder, model, field):
    edit_config(folder, **{field: ...})
    load_adapter(model, folder)
    assert len(lora_layers(model)) == 4


def test_patterns_are_read_in_the_files_order(folder, model):
    edit_config(folder, rank_pattern={"v_proj": 1, ".*_proj": 2}, alpha_pattern={"1.*v_proj": 2.5})
    config = read_adapter_config(folder, model)
    assert config.rank_pattern == (("v_proj", 1), (".*_proj", 2))
    assert config.alpha_pattern == (("1.*v_proj", 2.5),)


@pytest.mark.parametrize("value", [{}, None])
def test_no_pattern_is_an_empty_one_or_none(folder, model, value):
    edit_config(folder, rank_pattern=value, alpha_pattern=value)
    assert read_adapter_config(folder, model).rank_pattern == ()


def test_the_exact_pattern_of_a_path_takes_nothing_in_it_for_an_expression():
    paths = ["a.b", "axb", "z.a.b", "a.b.c", "a.(b+", "a.[1]", "ä.^b$"]
    for path in paths:
        assert [other for other in paths if matches(exactly(path), other)] == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[1]", "no fields"),
        ("", "not readable JSON"),
        ("null", "no fields"),
        ('"LORA"', "no fields"),
        ("[" * 100_000, "not readable JSON"),
        ('{"r": ' + "1" * 5000 + "}", "not readable JSON"),
        ('{"r": 3, "r": 4}', "not readable JSON: 'r' stands there twice"),
        ('\ufeff{"r": 3}', "not readable JSON"),
    ],
    ids=["half", "list", "empty", "null", "text", "deep", "long", "twice", "byte order mark"],
)
def test_a_file_that_is_no_config_is_refused(folder, model, text, message):
    (folder / "adapter_config.json").write_text(text)
    with refused(model, message):
        load_adapter(model, folder)


def test_a_folder_without_a_config_is_refused(model, tmp_path):
    with refused(model, r"is no adapter: it has no adapter_config\.json"):
        load_adapter(model, tmp_path)
