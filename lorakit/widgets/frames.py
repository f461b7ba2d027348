"""The lesson on the teacher's screen: its questions in their order, and what answers each.

    predict = FRAMES["changed"]         question, options, right: a page may ask the same

Everything is from committed results or is counted; what trains, trains on a button. Every `right`
is checked by a test against what was counted or measured.
"""

from dataclasses import replace

from lorakit.presets import PRESETS
from lorakit.run import Run
from lorakit.widgets.claim import ClaimExplorer
from lorakit.widgets.memory import MemoryExplorer
from lorakit.widgets.merged import MergedExplorer
from lorakit.widgets.parameters import ParametersExplorer
from lorakit.widgets.race import RaceExplorer
from lorakit.widgets.scrubber import SweepExplorer
from lorakit.widgets.stage import Frame
from lorakit.widgets.step import StepExplorer
from lorakit.widgets.when_full_wins import WhenFullWinsExplorer

RUN = Run(base="mini", task="json", rank=8, alpha=16, batch_size=16, steps=60)
SHAPES = ("mini", "smollm2-135m", "llama-3.2-1b", "llama-3-70b")
MANNERS = replace(RUN, task="manners-dialect", batch_size=8, steps=20, heldout=32)


def best_rates() -> SweepExplorer:
    """The sweep of ranks along the learning rate, on the task where the rate is in plain sight."""
    explorer = SweepExplorer("rank")
    explorer.controls["task"].value = MANNERS.task
    explorer.x.value, explorer.measure.value = "lr", "loss"
    return explorer


def deep() -> WhenFullWinsExplorer:
    explorer = WhenFullWinsExplorer()
    explorer.task.value = "deep"
    return explorer


_ALL = [
    Frame(
        key="changed",
        page="01",
        question="One step of full fine-tuning sees sixteen short examples. "
        "How many of the model's 835,456 parameters does it change?",
        options=("those that the answers' words use", "about half", "all, or all but a few"),
        right=2,
        answer="The embedding is the output head too: the loss pushes every word's score.",
        explorable=lambda: StepExplorer(RUN.with_method("full")),
    ),
    Frame(
        key="bill",
        page="01",
        question="Gradients and AdamW's state: how much beside the weights?",
        options=("as much", "twice as much", "three times as much", "it grows with the batch"),
        right=2,
        answer="One time the weights for gradients, two times for AdamW's means. What grows with "
        "the batch is the activations.",
        explorable=lambda: MemoryExplorer(
            PRESETS["mini"],
            replace(RUN.with_method("full"), batch_size=1),
            length=80,
            measure=False,
        ),
    ),
    Frame(
        key="first-step",
        page="02",
        question="LoRA adds (alpha / r) B A x to W x. W is frozen, and B is zero at the start. "
        "After one step, what has changed?",
        options=("the matrix A alone", "the matrix B alone", "both", "both, and W"),
        right=1,
        answer="A's gradient is multiplied by B, which is zero. From the second step on both move.",
        explorable=lambda: StepExplorer(RUN),
    ),
    Frame(
        key="under-1-percent",
        page="02",
        question="Rank 8 beside every linear layer. Where does it train less than 1%?",
        options=(
            "on the mini model, 128 wide, too",
            "from SmolLM2-135M on, 576 wide",
            "from Llama 3.2 1B on, 2,048 wide",
            "on Llama 3 70B alone, 8,192 wide",
        ),
        right=2,
        answer="Of a square weight it is 2 r / d: the wider the model, the smaller the share. "
        "(Not all are square, and the embedding counts: not quite 2 r / d of a model.)",
        explorable=lambda: ParametersExplorer("mini", rank=8, alpha=16, beside=SHAPES),
    ),
    Frame(
        key="directions",
        page="03",
        question="Full fine-tuning may use 128 directions in each layer. "
        "How many hold 90% of its change?",
        options=("3, as of an adapter", "about 20", "about 80, as by chance", "nearly all 128"),
        right=1,
        answer="Nobody told it to be thrifty, and it uses few: more than an adapter, "
        "a fraction of what chance would.",
        explorable=lambda: ClaimExplorer("H10", verdict=False),
    ),
    Frame(
        key="rank",
        page="04",
        question="Rank 64 trains 64 times as many numbers as rank 1. Each at its own best rate: "
        "how many more answers are right, on manners-dialect?",
        options=("none: rank 1 has more", "up to 10 in 100", "10 to 40 in 100", "over 40 in 100"),
        right=1,
        answer="From rank 4 on there is no gain that five seeds would show.",
        explorable=lambda: ClaimExplorer("H7", verdict=False),
    ),
    Frame(
        key="best-rate",
        page="04",
        question="The best learning rate of rank 8, beside that of full fine-tuning?",
        options=("a fifth or less", "about the same", "5 times or more"),
        right=2,
        answer="0.01 beside 0.002, each chosen on validation. (In full 0.001 is as good on the "
        "held-out answers, drawn here.) One rate for all is a rate that suits one of them.",
        explorable=best_rates,
    ),
    Frame(
        key="race",
        page="04",
        question="A race of twenty steps, with full fine-tuning's best rate for all. Whose loss is "
        "the lowest?",
        options=("rank 1", "rank 8", "rank 64", "full fine-tuning"),
        right=3,
        answer="Press Start. Then give LoRA its own rate, 0.01, and race again: its loss comes "
        "close. (Right answers are few after so short a race, and say little.)",
        explorable=lambda: RaceExplorer(
            replace(MANNERS.with_method("full"), lr=0.002), ranks=(1, 8, 64), lr=0.002
        ),
    ),
    Frame(
        key="peak",
        page="05",
        question="Rank 4 trains a twentieth of the mini model. What share of full fine-tuning's "
        "memory does a step of 32 rows take?",
        options=("a twentieth", "a third", "half", "over four fifths"),
        right=3,
        answer="LoRA saves gradients and optimizer state. The activations stay, and with many rows "
        "they are nearly everything.",
        explorable=lambda: MemoryExplorer(
            PRESETS["mini"], replace(RUN, rank=4, batch_size=32), length=128, measure=False
        ),
    ),
    Frame(
        key="file",
        page="06",
        question="SmolLM2-135M, rank 4 on q and v. How many times smaller than a copy of the model "
        "is an adapter's file?",
        options=("about 6 times", "about 60 times", "about 600 times", "about 6,000 times"),
        right=2,
        answer="So one keeps the base once, and an adapter for each task.",
        explorable=lambda: ClaimExplorer("H3", "smollm2", verdict=False),
    ),
    Frame(
        key="merge",
        page="06",
        question="SmolLM2's adapter of rank 8: its delta is 0.5% as large as W. "
        "Merged in bfloat16, how much of it is rounded away?",
        options=("1% or less", "about 5%", "about 30%", "nearly all"),
        right=2,
        answer="bfloat16 has 8 bits for the digits of a number: small changes of W fall between "
        "two of them. These answers hardly suffer; in 32 bits next to nothing is lost.",
        explorable=MergedExplorer,
    ),
    Frame(
        key="deep",
        page="07",
        question="A deep change: every word means another one, and sentences run backwards. "
        "With 512 examples instead of 32, LoRA's loss beside that of full fine-tuning...",
        options=("catches up", "stays as far behind", "falls further behind"),
        right=2,
        answer="Full fine-tuning's lead grows, and then it stays. (With 12,800 examples all had "
        "four times the steps.) On json, the shallowest task, it is larger still. Why?",
        explorable=deep,
    ),
    Frame(
        key="reach",
        page="07",
        question="All linear layers in full, every direction of them, without the embedding and "
        "the norms. On the deep task this does as well as...",
        options=("full fine-tuning", "neither: half-way", "LoRA, or nearly so"),
        right=2,
        answer="It was not rank. No adapter on linear layers reaches the embedding. With it rank 8 "
        "is nearly level, and so are embedding and norms alone, 4% of the parameters.",
        explorable=lambda: ClaimExplorer("full wins, why", verdict=False),
    ),
    Frame(
        key="qlora",
        page="08",
        question="QLoRA holds a base's linear layers in 4 bits instead of 32; embedding and head "
        "stay. Of the 32 GB of Llama 3 8B, how much is left?",
        options=("4 GB, an eighth", "8 GB, a quarter", "16 GB, a half", "nearly all"),
        right=1,
        answer="The layers take half a byte a weight, and a little for their scales. Half of what "
        "is left is embedding and head: a billion numbers.",
        explorable=lambda: MemoryExplorer(
            PRESETS["llama-3-8b"],
            replace(RUN, method="qlora", batch_size=1),
            length=128,
            measure=False,
        ),
    ),
    Frame(
        key="real",
        page="09",
        question="SmolLM2-135M, 60 examples: full fine-tuning gets 98 of 100 orders right. "
        "Rank 1, with 0.23% of the parameters?",
        options=("under 50", "50 to 80", "80 to 94", "95 or more"),
        right=3,
        answer="The words were known, the form was new: a narrow task.",
        explorable=lambda: ClaimExplorer("H5", "smollm2", verdict=False),
    ),
]
FRAMES = {frame.key: frame for frame in _ALL}
