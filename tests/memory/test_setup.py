"""Nonsense is refused, with the value and the rule."""

import pytest

from lorakit.lora import LoRAConfig
from lorakit.memory import Setup
from lorakit.presets import PRESETS

MINI = PRESETS["mini"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be a whole number of at least 1, got -3"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": True}, "got True"),
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"length": 257}, "length=257 is more than max_position_embeddings=256"),
        ({"dtype": "int3"}, "dtype must be one of float32, bfloat16, got 'int3'"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got 'tpu'"),
        ({"lora": LoRAConfig(rank=129)}, r"rank=129 is more than .*_proj has .*\(128\)"),
        ({"lora": LoRAConfig(targets=("q_porj",))}, "'q_porj' matches no linear layer"),
        ({"lora": LoRAConfig(rank_pattern={"v_proj": 4})}, r"rank_pattern=\{'v_proj': 4\} is not"),
        ({"quantized": True}, "quantized=True needs lora: 4 bits cannot train"),
    ],
)
def test_nonsense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Setup(model=MINI, **options)


def test_a_rank_as_large_as_the_narrowest_layer_is_allowed():
    assert Setup(model=MINI, lora=LoRAConfig(rank=128)).lora.rank == 128
    wide = LoRAConfig(rank=200, targets=("lm_head",))
    untied = Setup(model=PRESETS["llama-3-8b"], lora=wide)
    assert untied.lora.rank == 200
