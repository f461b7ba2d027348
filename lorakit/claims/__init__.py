"""What the literature claims of LoRA, and what came of it here: every claim, from its raw rows.

    python -m lorakit.claims data/results/claims.json      seconds; and a picture of each

`mini` is the mini base, `smollm2` SmolLM2-135M; None where nothing was measured.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lorakit.claims import directions, learning, rates, regimes, sizes
from lorakit.claims.finding import FAILS, HOLDS, UNKNOWN, Curves, Finding

LORA, INTRUDERS = "LoRA, arXiv 2106.09685", "LoRA vs full fine-tuning, arXiv 2410.21228"
FORGETS, REGRET = "LoRA learns less and forgets less, arXiv 2405.09673", "LoRA without regret"


@dataclass(frozen=True)
class Claim:
    """What is claimed, by whom, and how it is looked into on either base."""

    name: str
    claim: str
    source: str
    mini: Callable[[], Finding]
    smollm2: Callable[[], Finding] | None = None


REAL = "smollm2-135m"
CLAIMS = (
    Claim(
        "H1",
        "10,000 times fewer trainable parameters than full fine-tuning",
        f"{LORA}, abstract and table 4 (GPT-3 175B)",
        lambda: sizes.parameters("mini"),
        lambda: sizes.parameters(REAL),
    ),
    Claim(
        "H2",
        "Up to two thirds less GPU memory in training (here: at least half less, with one row)",
        f"{LORA}, section 4.2",
        lambda: sizes.vram("mini"),
        lambda: sizes.vram(REAL),
    ),
    Claim(
        "H3",
        "A task's file shrinks from 350 GB to 35 MB (here: at least 100 times)",
        f"{LORA}, section 4.2",
        lambda: sizes.disk("mini"),
        lambda: sizes.disk(REAL),
    ),
    Claim(
        "H5",
        "As good as full fine-tuning, or better (here: at most 0.02 of exact match behind on json "
        "and manners-dialect)",
        f"{LORA}, tables 2 and 3",
        learning.quality,
        learning.quality_real,
    ),
    Claim(
        "H6",
        "At equal parameters q alone and k alone are worst, and q with v beats either",
        f"{LORA}, table 5",
        learning.which_matrices,
    ),
    Claim(
        "H7",
        "The rank hardly matters (here: within 0.02 of exact match on the narrow task)",
        f"{LORA}, table 6",
        learning.rank_matters_little,
    ),
    Claim(
        "H8",
        "Adapters of two ranks share their first direction (phi above 0.5) and hardly more",
        f"{LORA}, section 7.2",
        lambda: directions.overlap("mini", "ranks"),
    ),
    Claim(
        "H8, two seeds",
        "Two runs of rank 64 share several directions (here: phi(8, 8) at least 3 times chance's)",
        f"{LORA}, section 7.2",
        lambda: directions.overlap("mini", "seeds"),
        lambda: directions.overlap("smollm2", "seeds"),
    ),
    Claim(
        "H9",
        "The delta strengthens directions that W has but does not emphasise (here: to more than W)",
        f"{LORA}, section 7.3 (21.5 times at rank 4)",
        lambda: directions.amplifies("mini"),
        lambda: directions.amplifies("smollm2"),
    ),
    Claim(
        "H10",
        "Full fine-tuning's delta has a rank 10 to 100 times that of an adapter (here: of rank 8)",
        FORGETS,
        lambda: directions.full_is_high_rank("mini"),
        lambda: directions.full_is_high_rank("smollm2"),
    ),
    Claim(
        "H11",
        "LoRA forgets less (here: once the task is learnt, the least of all rates and looks)",
        FORGETS,
        learning.forgets_less,
    ),
    Claim(
        "H12",
        "LoRA brings directions that the base never had, full fine-tuning does not "
        "(page 03: at rank 8 noise as loud brings as many)",
        INTRUDERS,
        lambda: directions.has_intruders("mini"),
        lambda: directions.has_intruders("smollm2"),
    ),
    Claim(
        "H13",
        "LoRA's best learning rate is about ten times that of full fine-tuning (here: 5 to 20)",
        REGRET,
        rates.rate_ratio,
    ),
    Claim(
        "H14",
        "With alpha / rank the best learning rate hardly depends on the rank",
        REGRET,
        rates.rate_by_rank,
    ),
    Claim(
        "H15, targets",
        "Attention alone is worse than the MLP alone, at equal parameters",
        REGRET,
        learning.attention_or_mlp,
    ),
    Claim(
        "H15, batches",
        "Large batches hurt LoRA more than full fine-tuning",
        REGRET,
        regimes.batch_gap,
    ),
    Claim(
        "full wins",
        "Full fine-tuning is furthest ahead where the change is deep, and more so with more data",
        "the lesson",
        regimes.full_wins,
    ),
    Claim(
        "full wins, why",
        "It is ahead there because an adapter has too few directions",
        "the lesson",
        regimes.lead_is_of_rank,
    ),
    Claim(
        "H17",
        "At one learning rate a high rank learns less with alpha / rank; alpha / sqrt(rank) mends "
        "it",
        "Rank-stabilised LoRA, arXiv 2312.03732",
        rates.scaling,
    ),
)


def judge() -> list[dict[str, Any]]:
    """Every claim and its findings, as JSON has them. Reads the raw rows; runs nothing."""
    told = []
    for claim in CLAIMS:
        found = {"mini": claim.mini(), "smollm2": claim.smollm2 and claim.smollm2()}
        told.append(
            {"name": claim.name, "claim": claim.claim, "source": claim.source}
            | {base: asdict(finding) if finding else None for base, finding in found.items()}
        )
    return told


def readme_rows(claims: list[dict[str, Any]]) -> list[str]:
    """data/results/README's table: a claim a line, and what came of it on either base."""
    rows = []
    for claim in claims:
        cells = [
            f"**{found['verdict']}**: {found['measured']}" if found else "-"
            for found in (claim["mini"], claim["smollm2"])
        ]
        rows.append(f"| {claim['claim']} ({claim['source']}) | {' | '.join(cells)} |")
    return rows


__all__ = [
    "CLAIMS",
    "FAILS",
    "HOLDS",
    "UNKNOWN",
    "Claim",
    "Curves",
    "Finding",
    "judge",
    "readme_rows",
]
