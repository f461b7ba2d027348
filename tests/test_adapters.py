"""Adapter files: PEFT reads ours, we read PEFT's, and what does not fit is named and refused."""

import copy
import dataclasses
import json
import math
import re
import warnings

import peft
import pytest
import torch
from adapter_files import contents, edit_config, hugging_face, refused
from live_bytes import LiveBytes
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lorakit.adapter_config import exactly
from lorakit.adapters import load_adapter, save_adapter
from lorakit.fingerprint import OtherPrecision, UnknownBase, fingerprint_of, remember_file
from lorakit.lora import LoRAConfig, inject, lora_layers, trainable
from lorakit.merging import merge
from lorakit.qlora import quantize_

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
    path = folder / "adapter_model.safetensors"
    tensors, about = load_file(path), metadata(folder)
    change(tensors)
    save_file(tensors, path, metadata=about)


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
        config = load_pefts(model, tmp_path)
        assert_same_answers(model.eval()(tokens), peer(tokens).logits, base)
    assert (config.rank, config.alpha, config.dropout) == (rank, 6, 0.1)
    assert config.use_rslora == use_rslora


def test_a_pattern_becomes_the_paths_it_matches(model, tmp_path):
    peft_adapted(model, rank=2, targets=PATTERN).save_pretrained(tmp_path)
    assert load_pefts(model, tmp_path).targets == (
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_pefts_half_precision_becomes_float32(model, tmp_path, dtype):
    peft_adapted(model, rank=2, targets="all-linear").to(dtype).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    load_pefts(model, tmp_path)
    layer = model.model.layers[0].self_attn.q_proj
    assert layer.A.dtype == layer.B.dtype == torch.float32
    assert torch.equal(layer.A, stored[KEY.format("A")].float())
    assert torch.equal(layer.B, stored[KEY.format("B")].float())


# Each layer its own rank or alpha. The first pattern that matches counts; these are in the order of
# the alphabet, for PEFT sorts them when it saves, and may so exchange two that match one layer.
PATTERNS = {
    "none": {},
    "rank": {"rank_pattern": {r"layers\.0\..*_proj": 2, "q_proj": 3}},
    "alpha": {"alpha_pattern": {r"mlp\.(up|down)_proj": 1, "v_proj": 40.0}},
    "both": {
        "rank_pattern": {r"^model\.layers\.1\.self_attn\.q_proj": 16, "k_proj": 1},
        "alpha_pattern": {"q_proj": 24, r"self_attn\.\w+": 3.5},
    },
}
each_pattern = pytest.mark.parametrize("patterns", PATTERNS.values(), ids=PATTERNS)
each_distant_rank = pytest.mark.parametrize("rank", [2, 16])


@each_pattern
@each_distant_rank
@each_scale
def test_peft_reads_our_ranks_and_alphas(
    model, tokens, perturb, tmp_path, rank, use_rslora, patterns
):
    with torch.no_grad():
        base = model(tokens)
    peer = hugging_face(model)
    inject(model, LoRAConfig(rank=rank, alpha=6, use_rslora=use_rslora, **patterns))
    perturb(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        peer = peft.PeftModel.from_pretrained(peer, save_adapter(model, tmp_path / "adapter"))
    for name, layer in lora_layers(model):
        theirs = peer.get_submodule(f"base_model.model.{name}")
        assert theirs.r["default"] == layer.config.rank
        assert theirs.scaling["default"] == pytest.approx(layer.config.scale, rel=1e-12)
    with torch.no_grad():
        assert_same_answers(peer(tokens).logits, model(tokens), base)


@each_pattern
@each_distant_rank
@each_scale
def test_we_read_pefts_ranks_and_alphas(model, tokens, tmp_path, rank, use_rslora, patterns):
    with torch.no_grad():
        base = model(tokens)
    peer = peft_adapted(model, rank=rank, targets="all-linear", use_rslora=use_rslora, **patterns)
    peer.save_pretrained(tmp_path)
    config = load_pefts(model, tmp_path)
    assert config.rank_pattern == tuple(patterns.get("rank_pattern", {}).items())
    assert config.alpha_pattern == tuple(patterns.get("alpha_pattern", {}).items())
    with torch.no_grad():
        assert_same_answers(model.eval()(tokens), peer(tokens).logits, base)


def load_pefts(model, folder) -> LoRAConfig:
    """What PEFT saved names no base."""
    with pytest.warns(UnknownBase):
        return load_adapter(model, folder)


def peft_adapted(model, *, rank, targets, use_rslora=False, **patterns) -> peft.PeftModel:
    """An adapter made by PEFT over the same base, its B filled."""
    config = peft.LoraConfig(
        **patterns,
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


@each_pattern
def test_ranks_and_alphas_of_their_own_are_loaded_bit_for_bit(model, perturb, tmp_path, patterns):
    other = copy.deepcopy(model)
    inject(model, LoRAConfig(rank=4, alpha=6, **patterns))
    perturb(model)
    load_adapter(other, save_adapter(model, tmp_path / "adapter"))
    for (name, layer), (same_name, loaded) in zip(
        lora_layers(model), lora_layers(other), strict=True
    ):
        assert same_name == name
        assert (loaded.config.rank, loaded.config.scale) == (layer.config.rank, layer.config.scale)
        assert torch.equal(loaded.A, layer.A)
        assert torch.equal(loaded.B, layer.B)


def test_the_commonest_rank_and_alpha_are_the_configs_and_the_others_stand_by_full_path(
    model, perturb, tmp_path
):
    config = LoRAConfig(rank=9, rank_pattern={"mlp.up_proj": 2, ".*": 4}, alpha_pattern={PATH: 1.5})
    inject(model, config)
    perturb(model)
    folder = save_adapter(model, tmp_path / "adapter")
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert (stored["r"], stored["lora_alpha"]) == (4, 16.0)
    assert stored["rank_pattern"] == {
        r"^model\.layers\.0\.mlp\.up_proj": 2,
        r"^model\.layers\.1\.mlp\.up_proj": 2,
    }
    assert stored["alpha_pattern"] == {r"^model\.layers\.1\.mlp\.up_proj": 1.5}


class Nested(nn.Module):
    """One path is the end of another."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"proj": nn.Linear(4, 4)})
        remember_file(self, "0123456789abcdef")


@pytest.mark.parametrize("special", ["proj", "inner.proj"])
def test_a_layer_whose_path_ends_anothers_keeps_its_rank_alone(tmp_path, special):
    model, ours, theirs = Nested(), Nested(), Nested()
    ranks = {exactly(special): 2}
    inject(model, LoRAConfig(rank=3, targets=("proj",), rank_pattern=ranks))
    folder = save_adapter(model, tmp_path / "adapter", allow_zero=True)
    load_adapter(ours, folder)
    expected = {name: 2 if name == special else 3 for name in ("proj", "inner.proj")}
    assert {name: layer.config.rank for name, layer in lora_layers(ours)} == expected
    config = peft.LoraConfig.from_pretrained(folder)
    peft.inject_adapter_in_model(config, theirs)
    assert {name: theirs.get_submodule(name).r["default"] for name in expected} == expected


def test_adapters_of_the_same_ranks_asked_for_in_other_words_take_over_the_values(
    model, perturb, tmp_path
):
    other = copy.deepcopy(model)
    inject(model, LoRAConfig(rank=4, rank_pattern={"q_proj": 2}))
    perturb(model)
    inject(other, LoRAConfig(rank=2, rank_pattern={"[kvogud].*": 4}))
    load_adapter(other, save_adapter(model, tmp_path / "adapter"))
    assert torch.equal(lora_layers(other)[0][1].B, lora_layers(model)[0][1].B)


def test_adapters_of_other_ranks_by_pattern_are_refused(model, folder, perturb):
    inject(model, dataclasses.replace(CONFIG, rank_pattern={"q_proj": 2}))
    perturb(model)
    with refused(model, r"model already has 14 adapters of .*rank_pattern=.*q_proj', 2"):
        load_adapter(model, folder)


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
        lambda m: setattr(
            lora_layers(m)[3][1], "config", dataclasses.replace(CONFIG, use_rslora=True)
        ),
        r"beside rank and alpha the layers' adapters differ, .*=False.* and .*use_rslora=True",
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


def test_an_adapter_of_an_older_version_gives_way(adapted, folder):
    before = contents(folder)
    (folder / "base_fingerprint.json").write_text("{}")
    save_adapter(adapted, folder)
    assert contents(folder) == before


def test_an_error_while_writing_leaves_the_earlier_adapter(adapted, folder, monkeypatch):
    def broken(path, tensors, fingerprint):
        path.write_bytes(b"half")
        raise OSError("disk full")

    before = contents(folder.parent)
    monkeypatch.setattr("lorakit.adapters.write_adapter_file", broken)
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
        lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(61, 32)}),
        r"holds base_model\.model\.model\.embed_tokens\.weight: the base's own embedding or head, "
        "7,808 bytes in all, .*save_embedding_layers=False",
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
    "minus infinity": (lambda t: t[KEY.format("A")][1].fill_(-math.inf), f"{A} is not finite"),
    **{
        f"{dtype}": (
            lambda t, dtype=dtype: t.update({KEY.format("A"): torch.ones(4, 32).to(dtype)}),
            rf"{A} is {name}, an adapter's are F32, F16, BF16",
        )
        for dtype, name in {
            torch.float64: "F64",
            torch.int64: "I64",
            torch.uint8: "U8",
            torch.bool: "BOOL",
            torch.float8_e4m3fn: "F8_E4M3",
            torch.complex64: "C64",
        }.items()
    },
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


def test_large_numbers_that_sum_to_infinity_are_loaded(model, folder):
    rewrite(folder, lambda t: t[KEY.format("A")].fill_(3e38))
    load_adapter(model, folder)
    assert (lora_layers(model)[0][1].A == 3e38).all()


def test_loaded_adapters_share_no_memory(model, folder):
    """They are read as one piece, which would be kept whole by the last of them."""
    load_adapter(model, folder)
    factors = [p for _, layer in lora_layers(model) for p in (layer.A, layer.B)]
    assert len({p.untyped_storage().data_ptr() for p in factors}) == len(factors)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in factors)


def test_a_pickle_is_refused_with_the_reason_and_the_way_out(model, folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with refused(model, r"adapter_model\.bin, a pickle, which can run any code.*save_pretrained"):
        load_adapter(model, folder)


def test_a_folder_without_weights_is_refused(model, folder):
    (folder / "adapter_model.safetensors").unlink()
    with refused(model, r"it has no adapter_model\.safetensors"):
        load_adapter(model, folder)


def header_of(data: bytes) -> tuple[dict, bytes]:
    """The JSON of a safetensors file, and the values after it."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(data: bytes, change) -> bytes:
    """The same values under a header that `change` edits in place, or gives as other text."""
    fields, values = header_of(data)
    text = change(fields) or json.dumps(fields)
    return len(text).to_bytes(8, "little") + text.encode() + values


def at(fields) -> dict:
    return fields[KEY.format("A")]


BROKEN = {
    "a byte short": lambda data: data[:-1],
    "a byte long": lambda data: data + b"x",
    "half": lambda data: data[: len(data) // 2],
    "cut in the header": lambda data: data[:100],
    "cut in the length": lambda data: data[:5],
    "empty": lambda data: b"",
    "a header of 2^63 bytes": lambda data: (2**63).to_bytes(8, "little") + data[8:],
    "a header as long as the file": lambda data: len(data).to_bytes(8, "little") + data[8:],
    "no JSON": lambda data: data[:8] + b"x" + data[9:],
    "no UTF-8": lambda data: data[:20] + b"\xff" + data[21:],
    "a list": lambda data: with_header(data, lambda fields: "[]"),
    "nothing but braces": lambda data: with_header(data, lambda fields: "{}"),
    "a field twice": lambda data: with_header(
        data,
        lambda fields: (
            json.dumps(fields)[:-1] + f', "{KEY.format("A")}": {json.dumps(at(fields))}}}'
            if at(fields).update(data_offsets=[0, 512]) is None
            else ""
        ),
    ),
    "a larger shape": lambda data: with_header(data, lambda f: at(f).update(shape=[400, 32])),
    "a shape of 2^40": lambda data: with_header(data, lambda f: at(f).update(shape=[2**40, 32])),
    "a product beyond 64 bits": lambda data: with_header(
        data, lambda f: at(f).update(shape=[2**40, 2**40])
    ),
    "a negative shape": lambda data: with_header(data, lambda f: at(f).update(shape=[-4, -32])),
    "an end beyond the file": lambda data: with_header(
        data, lambda f: at(f).update(data_offsets=[0, 2**50])
    ),
    "an end before its start": lambda data: with_header(
        data, lambda f: at(f).update(data_offsets=[512, 0])
    ),
    "one tensor over another": lambda data: with_header(
        data, lambda f: at(f).update(data_offsets=[8, 520])
    ),
    "an unknown type": lambda data: with_header(data, lambda f: at(f).update(dtype="F31")),
    "metadata that is no text": lambda data: with_header(
        data, lambda f: f.update(__metadata__={"format": ["pt"]})
    ),
}


@pytest.mark.parametrize("carries", [False, True], ids=["plain", "adapted"])
@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_damaged_file_is_refused(model, folder, perturb, damage, carries):
    if carries:
        inject(model, CONFIG)
        perturb(model, 0.1)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with refused(model, r"adapter_model\.safetensors (is damaged: |lacks )"):
        load_adapter(model, folder)


def test_a_header_may_tell_of_the_tensors_in_any_order(model, folder):
    path = folder / "adapter_model.safetensors"
    stored = {key: t.clone() for key, t in load_file(path).items()}  # not mapped from the file
    turned = with_header(path.read_bytes(), lambda f: json.dumps(dict(reversed(f.items()))))
    path.write_bytes(turned)
    load_adapter(model, folder)
    layer = model.model.layers[0].self_attn.q_proj
    assert torch.equal(layer.A, stored[KEY.format("A")])
    assert torch.equal(layer.B, stored[KEY.format("B")])


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("target", ["a file", "nothing"])
def test_a_link_that_leads_out_of_the_folder_is_refused_by_name(model, folder, name, target):
    elsewhere = folder.parent / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    if target == "nothing":
        elsewhere.unlink()
    with refused(model, rf"{re.escape(name)} leads out of its folder, to .*elsewhere"):
        load_adapter(model, folder)


def test_a_link_within_the_folder_and_a_link_to_the_folder_are_followed(model, folder):
    (folder / "adapter_model.safetensors").rename(folder / "values")
    (folder / "adapter_model.safetensors").symlink_to("values")
    link = folder.with_name("link")
    link.symlink_to(folder)
    assert load_adapter(model, link).rank == CONFIG.rank


def test_a_link_to_itself_is_refused(model, folder):
    path = folder / "adapter_model.safetensors"
    path.unlink()
    path.symlink_to(path)
    with refused(model, r"it has no adapter_model\.safetensors"):
        load_adapter(model, folder)


def test_a_rank_that_no_memory_holds_is_refused_at_once(model, folder):
    edit_config(folder, r=10**9)
    with LiveBytes(model) as live, refused(model, r"need \(1000000000, 32\)"):
        load_adapter(model, folder)
    assert live.peak < 10**6


# The base it was trained on


def metadata(folder) -> dict[str, str]:
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return file.metadata()


def test_the_fingerprint_stands_in_the_metadata_beside_pefts(model, folder):
    assert metadata(folder) == {"base_fingerprint": fingerprint_of(model), "format": "pt"}
    assert sorted(contents(folder)) == ["adapter_config.json", "adapter_model.safetensors"]


def test_an_adapter_on_weights_of_no_file_tells_none(adapted, tmp_path):
    remember_file(adapted, None)
    assert metadata(save_adapter(adapted, tmp_path / "adapter")) == {"format": "pt"}


@pytest.mark.parametrize("allowed", [False, True])
def test_another_base_is_refused_with_both_names_unless_allowed(model, folder, allowed):
    remember_file(model, "fedcba9876543210")
    if allowed:
        assert load_adapter(model, folder, allow_other_base=True).rank == CONFIG.rank
        return
    with refused(
        model, "another base .*0123456789abcdef.* fedcba9876543210.*allow_other_base=True"
    ):
        load_adapter(model, folder)


@pytest.mark.parametrize(
    ("trained_on", "here", "silent"),
    [
        ("0123456789abcdef", None, "this model does not tell its own"),
        (None, "0123456789abcdef", "the adapter does not tell it"),
        (None, None, "the adapter does not tell it"),
    ],
)
def test_where_nobody_can_tell_the_base_the_adapter_loads_with_a_note(
    model, adapted, tmp_path, trained_on, here, silent
):
    remember_file(adapted, trained_on)
    remember_file(model, here)
    folder = save_adapter(adapted, tmp_path / "adapter")
    with pytest.warns(UnknownBase, match=f"nobody can tell .*: {silent}") as caught:
        load_adapter(model, folder)
    assert caught[0].filename == __file__  # it points at who asked, not at this lab's code
    assert torch.equal(lora_layers(model)[0][1].B, lora_layers(adapted)[0][1].B)
    load_adapter(model, folder, allow_other_base=True)  # who allows any base wants no note


def test_the_base_in_bfloat16_is_still_its_file(model, folder):
    load_adapter(model.bfloat16(), folder)
    assert {p.dtype for p in trainable(model)} == {torch.float32}


def test_an_old_folder_with_a_fingerprint_beside_it_loads_with_a_note(model, adapted, tmp_path):
    remember_file(adapted, None)
    folder = save_adapter(adapted, tmp_path / "adapter")
    (folder / "base_fingerprint.json").write_text('{"base_fingerprint": "0"}')
    with pytest.warns(UnknownBase):
        load_adapter(model, folder)


# In 4 bits


@pytest.fixture
def over_4_bits(model, perturb, tmp_path):
    """An adapter trained over the same base in 4 bits, saved; `model` is in full precision."""
    other = copy.deepcopy(model)
    quantize_(other, block=32)
    inject(other, CONFIG)
    perturb(other)
    return save_adapter(other, tmp_path / "over 4 bits")


def test_an_adapter_over_4_bits_tells_their_form(model, over_4_bits):
    assert metadata(over_4_bits) == {
        "base_fingerprint": fingerprint_of(model),
        "base_quantized": "nf4/32/double",
        "format": "pt",
    }


def test_an_adapter_over_4_bits_is_loaded_onto_the_same_without_a_note(model, over_4_bits):
    quantize_(model, block=32)
    assert load_adapter(model, over_4_bits).rank == CONFIG.rank
    assert load_adapter(model, over_4_bits).rank == CONFIG.rank  # over what stands there already


@pytest.mark.parametrize(
    ("form", "over"),
    [
        (None, "over the plain weights it"),
        ({"block": 16}, r"over these \(nf4/16/double\) it"),
        ({"block": 32, "double": False}, r"over these \(nf4/32/single\) it"),
        ({"block": 32, "codebook": "int4"}, r"over these \(int4/32/double\) it"),
    ],
    ids=str,
)
def test_over_other_weights_than_its_4_bits_an_adapter_loads_with_a_note(
    model, over_4_bits, form, over
):
    if form is not None:
        quantize_(model, **form)
    message = rf"over a base in 4 bits \(nf4/32/double\): {over} .* quantize_\(model\)"
    with pytest.warns(OtherPrecision, match=message) as caught:
        load_adapter(model, over_4_bits)
    assert [warning.filename for warning in caught] == [__file__]
    stored = load_file(over_4_bits / "adapter_model.safetensors")
    assert torch.equal(lora_layers(model)[0][1].B, stored[KEY.format("B")])


def test_who_allows_any_base_wants_no_note_about_its_4_bits(model, over_4_bits):
    assert load_adapter(model, over_4_bits, allow_other_base=True).rank == CONFIG.rank


def test_an_adapter_over_plain_weights_loads_onto_4_bits_as_before(model, folder):
    quantize_(model, block=32)
    assert load_adapter(model, folder).rank == CONFIG.rank
