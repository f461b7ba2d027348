"""Adapter files: PEFT reads ours, we read PEFT's, and what does not fit is named and refused."""

import copy
import dataclasses
import math
import re
import warnings

import peft
import pytest
import torch
from adapter_files import contents, hugging_face, refused
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit.adapters import adapter_bytes, base_fingerprint, load_adapter, save_adapter
from lorakit.lora import LoRAConfig, inject, lora_layers, target_layers, trainable
from lorakit.merging import merge
from lorakit.model import Llama
from lorakit.presets import PRESETS

CONFIG = LoRAConfig(rank=4, alpha=6.0)
PATH = "model.layers.1.mlp.up_proj"
TARGETS = {"q and v": ("q_proj", "v_proj"), "all linear": "all-linear", "one path": (PATH,)}
PATTERN = r".*\.1\.self_attn\.[kq]_proj"
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"

each_target = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
each_scale = pytest.mark.parametrize("use_rslora", [False, True], ids=["plain", "rslora"])
each_rank = pytest.mark.parametrize("rank", [1, 4])


def assert_same_answers(got, expected, base):
    """`got` is `expected`, and the adapter that both hold changes the base's answers by 1%."""
    largest = expected.abs().max()
    assert (expected - base).abs().max() > 0.01 * base.abs().max()
    assert (got - expected).abs().max() < 1e-5 * largest


@pytest.fixture
def adapted(model, perturb):
    """A second model on the same base, with adapters of CONFIG."""
    other = copy.deepcopy(model)
    inject(other, CONFIG)
    perturb(other)
    return other


@pytest.fixture
def folder(adapted, tmp_path):
    """The adapters of `adapted`, saved; `model` has none."""
    return save_adapter(adapted, tmp_path / "adapter")


def rewrite(folder, change) -> None:
    """Pass the file's tensors through `change`, which edits the dict in place."""
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


# With PEFT


@each_rank
@each_scale
@each_target
def test_peft_reads_ours(model, tokens, perturb, tmp_path, rank, use_rslora, targets):
    peer = hugging_face(model)
    with torch.no_grad():
        base = model(tokens)
    config = LoRAConfig(rank=rank, alpha=6, targets=targets, dropout=0.1, use_rslora=use_rslora)
    names = inject(model, config)
    perturb(model)
    folder = save_adapter(model.eval(), tmp_path / "adapter")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer = peft.PeftModel.from_pretrained(peer, folder)
    assert [str(w.message) for w in caught if issubclass(w.category, UserWarning)] == []
    adapted = [n for n, m in peer.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert adapted == [f"base_model.model.{name}" for name in names]
    with torch.no_grad():
        assert_same_answers(peer(tokens).logits, model(tokens), base)


@each_rank
@each_scale
@pytest.mark.parametrize(
    "targets", [*TARGETS.values(), PATTERN], ids=[*TARGETS, "a regular expression"]
)
def test_we_read_pefts(model, tokens, tmp_path, rank, use_rslora, targets):
    peer = peft_adapted(model, rank=rank, targets=targets, use_rslora=use_rslora)
    peer.save_pretrained(tmp_path)
    with torch.no_grad():
        base = model(tokens)
        config = load_adapter(model, tmp_path)
        assert_same_answers(model.eval()(tokens), peer(tokens).logits, base)
    assert (config.rank, config.alpha, config.dropout) == (rank, 6, 0.1)
    assert config.use_rslora == use_rslora


def test_a_pattern_becomes_the_paths_it_matches(model, tmp_path):
    peft_adapted(model, rank=2, targets=PATTERN).save_pretrained(tmp_path)
    assert load_adapter(model, tmp_path).targets == (
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_pefts_half_precision_becomes_float32(model, tmp_path, dtype):
    peft_adapted(model, rank=2, targets="all-linear").to(dtype).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    load_adapter(model, tmp_path)
    layer = model.model.layers[0].self_attn.q_proj
    assert layer.A.dtype == layer.B.dtype == torch.float32
    assert torch.equal(layer.A, stored[KEY.format("A")].float())
    assert torch.equal(layer.B, stored[KEY.format("B")].float())


def peft_adapted(model, *, rank, targets, use_rslora=False) -> peft.PeftModel:
    """An adapter made by PEFT over the same base, its B filled."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=6,
        lora_dropout=0.1,
        target_modules=list(targets) if isinstance(targets, tuple) else targets,
        use_rslora=use_rslora,
        task_type="CAUSAL_LM",
    )
    peer = peft.get_peft_model(hugging_face(model), config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in peer.named_parameters():
            if "lora_B" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return peer


# There and back


@each_target
def test_what_was_saved_is_loaded_bit_for_bit(model, perturb, tmp_path, targets):
    other = copy.deepcopy(model)
    names = inject(model, LoRAConfig(rank=3, targets=targets))
    perturb(model)
    load_adapter(other, save_adapter(model, tmp_path / "adapter"))
    assert [name for name, _ in lora_layers(other)] == names
    after = other.state_dict()
    assert after.keys() == model.state_dict().keys()
    assert all(torch.equal(after[name], value) for name, value in model.state_dict().items())


def test_loaded_adapters_train_and_nothing_else_does(model, folder):
    load_adapter(model, folder)
    expected = [p for _, layer in lora_layers(model) for p in (layer.A, layer.B)]
    assert list(map(id, trainable(model))) == list(map(id, expected))


def test_the_tensors_are_float32_and_unscaled_whatever_the_base(model, perturb, tmp_path):
    inject(model.bfloat16(), CONFIG)
    perturb(model)
    layer = model.model.layers[0].self_attn.q_proj
    layer.double()
    folder = save_adapter(model, tmp_path / "adapter")
    stored = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert torch.equal(stored[KEY.format("A")], layer.A.float())
    assert torch.equal(stored[KEY.format("B")], layer.B.float())


def test_adapters_of_the_same_config_take_over_the_values(model, folder):
    inject(model, CONFIG)
    layers = lora_layers(model)
    assert load_adapter(model, folder) == CONFIG
    assert lora_layers(model) == layers
    stored = load_file(folder / "adapter_model.safetensors")
    assert torch.equal(layers[0][1].B, stored[KEY.format("B")])


@pytest.mark.parametrize(
    "change",
    [{"rank": 2}, {"alpha": 5.0}, {"dropout": 0.1}, {"use_rslora": True}, {"targets": ("q_proj",)}],
    ids=str,
)
def test_adapters_of_another_config_are_refused_with_the_way_out(model, folder, perturb, change):
    inject(model, dataclasses.replace(CONFIG, **change))
    perturb(model)
    with refused(model, r"model already has .* adapters of .*remove\(model\) takes them off"):
        load_adapter(model, folder)


def test_loading_into_merged_adapters_is_refused(adapted, folder):
    merge(adapted)
    with refused(adapted, r"cannot load: 14 layers are merged .*unmerge\(model\)"):
        load_adapter(adapted, folder)


# Saving refuses


def spoil(model, part):
    dict(lora_layers(model))["model.layers.0.self_attn.q_proj"].get_parameter(part).data[0] = (
        math.inf
    )


REFUSED = {
    "merged": (merge, r"cannot save: 14 layers are merged .*unmerge\(model\)"),
    "A not finite": (lambda m: spoil(m, "A"), re.escape(KEY.format("A")) + " is not finite"),
    "B not finite": (lambda m: spoil(m, "B"), re.escape(KEY.format("B")) + " is not finite"),
    "all B zero": (
        lambda m: [layer.B.data.zero_() for _, layer in lora_layers(m)],
        "every B is zero, so nothing was learnt.*allow_zero=True",
    ),
    "two configs": (
        lambda m: setattr(lora_layers(m)[3][1], "config", LoRAConfig(rank=4, alpha=5.0)),
        r"adapters differ, .*alpha=6\.0.* and .*alpha=5\.0",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_saving_refuses_before_anything_is_written(adapted, tmp_path, spoil, message):
    spoil(adapted)
    with refused(adapted, message):
        save_adapter(adapted, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_saving_a_model_without_adapters_is_refused(model, tmp_path):
    with refused(model, "nothing to save: no adapters"):
        save_adapter(model, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_adapter_is_saved_when_asked_to(model, tmp_path):
    inject(model, CONFIG)
    folder = save_adapter(model, tmp_path / "adapter", allow_zero=True)
    assert not load_file(folder / "adapter_model.safetensors")[KEY.format("B")].any()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["notes.txt"], "notes.txt"),
        (["adapter_config.json", "adapter_model.safetensors", "optimizer.pt"], "optimizer.pt"),
        (
            ["adapter_model.safetensors"],
            "adapter_config.json or adapter_model.safetensors is missing",
        ),
    ],
)
def test_a_folder_that_holds_anything_else_is_not_written_over(adapted, tmp_path, files, named):
    for file in files:
        (tmp_path / file).write_text("kept")
    with refused(adapted, rf"not an earlier adapter \({named}\): name another folder"):
        save_adapter(adapted, tmp_path)
    assert contents(tmp_path) == dict.fromkeys(files, b"kept")


def test_an_earlier_adapter_gives_way(adapted, folder):
    before = contents(folder)
    save_adapter(adapted, folder)
    assert contents(folder) == before
    lora_layers(adapted)[0][1].B.data.add_(1)
    assert save_adapter(adapted, folder) == folder
    assert contents(folder).keys() == before.keys()
    assert contents(folder) != before


def test_an_error_while_writing_leaves_the_earlier_adapter(adapted, folder, monkeypatch):
    def broken(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    before = contents(folder.parent)
    monkeypatch.setattr("lorakit.adapters.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_adapter(adapted, folder)
    assert contents(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_an_exchange_cut_in_two_is_finished_before_loading(model, folder):
    folder.rename(folder.with_name(".adapter.lorakit-old"))
    assert load_adapter(model, folder).rank == CONFIG.rank


# Loading refuses


def rename(tensors, old, new):
    for key in list(tensors):
        tensors[key.replace(old, new)] = tensors.pop(key)


def exchange(tensors):
    a, b = KEY.format("A"), KEY.format("B")
    tensors[a], tensors[b] = tensors[b], tensors[a]


A, B = (re.escape(KEY.format(part)) for part in "AB")
DAMAGE = {
    "A missing": (lambda t: t.pop(KEY.format("A")), f"lacks {A}"),
    "B missing": (lambda t: t.pop(KEY.format("B")), f"lacks {B}"),
    "all missing": (dict.clear, r"lacks base_model\.model\.model\.layers\.0\.self_attn\.q_proj"),
    "extra layer": (
        lambda t: t.update({KEY.format("A").replace("s.0", "s.9"): torch.ones(4, 32)}),
        r"holds .*layers\.9\.self_attn\.q_proj\.lora_A\.weight: no layer of this model",
    ),
    "embedding saved": (
        lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(2)}),
        r"holds base_model\.model\.model\.embed_tokens\.weight",
    ),
    "no prefix": (
        lambda t: rename(t, "base_model.model.", ""),
        r"holds model\.layers.*keys begin with 'base_model\.model\.'",
    ),
    "adapter's name in the keys": (
        lambda t: rename(t, ".weight", ".default.weight"),
        r"holds .*lora_A\.default\.weight: no layer of this model",
    ),
    "DoRA": (
        lambda t: t.update({KEY.split(".lora_")[0] + ".lora_magnitude_vector": torch.ones(32)}),
        r"q_proj\.lora_magnitude_vector: DoRA's magnitudes are not supported",
    ),
    "embedding": (
        lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2)}),
        r"embed_tokens\.lora_embedding_A: adapters on embeddings are not supported",
    ),
    "A and B exchanged": (exchange, rf"{A} is \(32, 4\), this model and r=4 need \(4, 32\)"),
    "other rank": (
        lambda t: t.update({KEY.format("B"): torch.ones(32, 3)}),
        rf"{B} is \(32, 3\), this model and r=4 need \(32, 4\)",
    ),
    "not finite": (lambda t: t[KEY.format("B")][0].fill_(math.nan), f"{B} is not finite"),
    "infinite in float32": (
        lambda t: t.update({KEY.format("A"): torch.full((4, 32), 1e200, dtype=torch.float64)}),
        f"{A} is not finite",
    ),
}


@pytest.mark.parametrize("carries", [False, True], ids=["plain", "adapted"])
@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_tensor_that_does_not_fit_is_named(model, folder, perturb, damage, message, carries):
    if carries:
        inject(model, CONFIG)
        perturb(model, 0.1)
    rewrite(folder, damage)
    with refused(model, message):
        load_adapter(model, folder)


def test_a_pickle_is_refused_with_the_reason_and_the_way_out(model, folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with refused(model, r"adapter_model\.bin, a pickle, which can run any code.*save_pretrained"):
        load_adapter(model, folder)


def test_a_folder_without_weights_is_refused(model, folder):
    (folder / "adapter_model.safetensors").unlink()
    with refused(model, r"it has no adapter_model\.safetensors"):
        load_adapter(model, folder)


def test_a_damaged_file_is_refused(model, folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with refused(model, r"adapter_model\.safetensors is damaged"):
        load_adapter(model, folder)


# The base it was trained on


def test_another_base_is_refused_unless_allowed(model, folder):
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.1)
    with refused(model, "trained on another base .*allow_other_base=True"):
        load_adapter(model, folder)
    assert load_adapter(model, folder, allow_other_base=True).rank == CONFIG.rank


def test_without_a_fingerprint_any_base_of_these_shapes_will_do(model, folder):
    (folder / "base_fingerprint.json").unlink()
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.1)
    assert load_adapter(model, folder).rank == CONFIG.rank


def test_the_same_base_in_bfloat16_is_no_other_base(model, folder):
    load_adapter(model.bfloat16(), folder)
    assert {p.dtype for p in trainable(model)} == {torch.float32}


def test_the_fingerprint_follows_names_shapes_and_weights(model):
    layers = target_layers(model, ("up_proj",))
    before = base_fingerprint(layers)
    assert base_fingerprint(target_layers(copy.deepcopy(model), ("up_proj",))) == before
    assert base_fingerprint({f"x.{name}": layer for name, layer in layers.items()}) != before
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1
    assert base_fingerprint(layers) != before


# Size


@pytest.mark.parametrize("rank", [1, 5, 32])
@each_scale
@each_target
def test_the_size_is_known_before_training(model, perturb, tmp_path, rank, use_rslora, targets):
    config = LoRAConfig(rank=rank, targets=targets, use_rslora=use_rslora)
    inject(model, config)
    perturb(model)
    folder = save_adapter(model, tmp_path / "adapter")
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert adapter_bytes(model.config, config) == size


def test_the_size_is_exact_where_layers_have_two_digits(model, tmp_path):
    deep = dataclasses.replace(model.config, num_hidden_layers=12, hidden_size=8)
    net = Llama(deep)
    inject(net, CONFIG)
    folder = save_adapter(net, tmp_path / "adapter", allow_zero=True)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert adapter_bytes(deep, CONFIG) == size


def test_smollm2_at_rank_8_takes_9_8_megabytes():
    assert adapter_bytes(PRESETS["smollm2-135m"], LoRAConfig(rank=8)) == pytest.approx(9.8e6, 0.01)


def test_the_metadata_is_pefts(folder):
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
