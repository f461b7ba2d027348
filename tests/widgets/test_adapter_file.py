"""The parts of an adapter's file: those of the file itself, and it grows where a tick says so."""

import pytest
from adapter_files import parts
from explorables import look

from lorakit.adapter_file import adapter_file
from lorakit.adapters import save_adapter
from lorakit.counts import count
from lorakit.fingerprint import remember_file
from lorakit.lora import ALL_LINEAR, LoRAConfig, inject
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.widgets import AdapterFileExplorer
from lorakit.widgets.adapter_file import describe

MINI = PRESETS["mini"]


@pytest.fixture
def explorer() -> AdapterFileExplorer:
    return AdapterFileExplorer("mini", rank=8)


def shown_bytes(explorer) -> list[str]:
    return [text.get_text() for text in explorer.picture.axes.texts]


@pytest.mark.parametrize(
    ("rank", "targets"), [(1, ("q_proj", "v_proj")), (8, ALL_LINEAR), (64, ALL_LINEAR)]
)
def test_what_is_drawn_is_what_a_real_file_holds(explorer, tmp_path, rank, targets):
    explorer.rank.value, explorer.targets.value = rank, targets
    model = Llama(MINI)
    remember_file(model, "0123456789abcdef")
    inject(model, LoRAConfig(rank=rank, targets=targets))
    path = save_adapter(model, tmp_path / "adapter", allow_zero=True) / "adapter_model.safetensors"
    real = parts(path)
    expected = [*(real.A[name] + real.B[name] for name in real.A), real.header]
    drawn = dict(zip([t.get_text() for t in explorer.picture.axes.get_yticklabels()],
                     shown_bytes(explorer), strict=True))  # fmt: skip
    names = [*real.A, "header"]
    assert drawn == {n: f"{size:,} bytes" for n, size in zip(names, expected, strict=True)}
    assert explorer.picture.text.startswith(f"{path.stat().st_size:,} bytes in all, ")


def test_the_tick_adds_embedding_and_head_and_takes_them_away_again(explorer):
    before = look(explorer)
    explorer.embeddings.value = True
    matrix = 4 * MINI.vocab_size * MINI.hidden_size
    assert shown_bytes(explorer).count(f"{matrix:,} bytes") == 2
    plain = adapter_file(MINI, LoRAConfig(rank=8))
    whole = adapter_file(MINI, LoRAConfig(rank=8), embeddings=True)
    assert whole.total - whole.header == plain.total - plain.header + 2 * matrix
    assert explorer.picture.text.startswith(f"{whole.total:,} bytes in all")
    explorer.embeddings.value = False
    assert look(explorer) == before


def test_the_words_say_whose_the_embedding_is():
    lora = LoRAConfig(rank=8)
    assert "embedding is not in it" in describe(adapter_file(MINI, lora), MINI)
    whole = describe(adapter_file(MINI, lora, embeddings=True), MINI)
    assert whole.endswith("which no adapter here has changed, the same numbers twice")
    untied = PRESETS["llama-3-8b"]
    assert describe(adapter_file(untied, lora, embeddings=True), untied).endswith("has changed")


def test_the_shares_are_those_of_the_file_and_of_the_model():
    found = adapter_file(MINI, LoRAConfig(rank=8), embeddings=True)
    told = describe(found, MINI)
    factors = sum(found.A.values()) + sum(found.B.values())
    copy = 4 * count(MINI).total
    assert told.startswith(f"{found.total:,} bytes in all, {found.total / copy:.2%} of the model's")
    assert f"{factors / found.total:.1%} are A and B" in told
    assert f"{sum(found.beside.values()) / found.total:.1%} the base's embedding" in told
