"""The exercise on methods: which one for which brief."""

from collections.abc import Iterator, Mapping

from lorakit.checks.exercise import Exercise, Facet, Mistake

BRIEFS = "ABCDE"
METHODS = ("full", "lora", "qlora", "lora and embedding")


def _methods(methods: Mapping[str, str]) -> Iterator[Facet]:
    given = [methods[brief] for brief in BRIEFS]
    yield "methods that there are not", [m for m in given if m is not ... and m not in METHODS]
    for brief in BRIEFS:
        yield f"brief {brief}", methods[brief]


check_methods = Exercise(
    key="methods",
    page="07",
    prompt="""\
### Exercise: which method?

Five briefs, one method each: `"full"`, `"lora"`, `"qlora"` (LoRA over a base in 4 bits), or `"lora
and embedding"` (embedding and head train in full beside the adapters). Of those that will do, take
the one that gives up least. You may ask `lk.largest_batch`.

- **A**: an 8B model, one GPU with 24 GB, texts of 512 tokens; it shall answer in one fixed form,
  which the base knows.
- **B**: the same, with 12 GB.
- **C**: the mini model learns a language in which every word means another. Memory is no concern,
  only the lowest loss counts.
- **D**: fifty customers want a form of their own each; one 1B base in memory shall serve them all,
  row by row of a batch.
- **E**: an 8B model gets 500 new words into its vocabulary, on one GPU with 80 GB.""",
    imports="",
    starter="""\
methods = {"A": ..., "B": ..., "C": ..., "D": ..., "E": ...}""",
    solution="""\
methods = {"A": "lora", "B": "qlora", "C": "full", "D": "lora", "E": "lora and embedding"}""",
    answers=("methods",),
    observe=_methods,
    first="Brief A: how many bytes has an 8B model in 16 bits, and how many are left of 24 GB?",
    hints=(
        "for each brief ask what cannot do it: does it fit, does it reach what has to change, how "
        "often is it kept?",
        "page 05 for A and B, page 07 for C and E. In D, what is there fifty times?",
    ),
    example="methods",
    right="What fits, what reaches, what is kept: in that order",
    mistakes=(
        Mistake(
            "full where it does not fit",
            "Brief A: 16 GB of weights, and how many of gradients and moments?",
            {'"A": "lora"': '"A": "full"'},
        ),
        Mistake(
            "4 bits where 16 fit",
            "Brief A: it would do, and rounds every weight. Is there no room for 16 bits?",
            {'"A": "lora"': '"A": "qlora"'},
        ),
        Mistake(
            "embedding trained without need",
            "Brief A: the base knows the form. Which word would need a new embedding?",
            {'"A": "lora"': '"A": "lora and embedding"'},
        ),
        Mistake(
            "16 bits where only 4 fit",
            "Brief B: how many GB do the frozen weights take alone, in 16 bits?",
            {'"B": "qlora"': '"B": "lora"'},
        ),
        Mistake(
            "full where not even the base fits",
            "Brief B: how many GB do the weights take alone, in 16 bits?",
            {'"B": "qlora"': '"B": "full"'},
        ),
        Mistake(
            "a trained embedding beside a base that does not fit",
            "Brief B: how many GB do the weights take alone, in 16 bits?",
            {'"B": "qlora"': '"B": "lora and embedding"'},
        ),
        Mistake(
            "4 bits where every word changes",
            "Brief C: page 07 trained every direction of every linear layer. Are 4 bits more than "
            "that?",
            {'"C": "full"': '"C": "qlora"'},
        ),
        Mistake(
            "an embedding for each",
            "Brief D: which words of the base would a form of answer change?",
            {'"D": "lora", ': '"D": "lora and embedding", '},
        ),
        Mistake(
            "4 bits for words that adapters cannot reach",
            "Brief E: in 4 bits or in 16, what is in the embedding's row of a new word?",
            {'"E": "lora and embedding"': '"E": "qlora"'},
        ),
        Mistake(
            "adapters where every word changes",
            "Brief C: page 07 trained every direction of every linear layer. Was that enough?",
            {'"C": "full"': '"C": "lora"'},
        ),
        Mistake(
            "nearly the lowest loss",
            "Brief C: page 07 has both, 0.66 and 0.63. What did the brief say of memory?",
            {'"C": "full"': '"C": "lora and embedding"'},
        ),
        Mistake(
            "a copy for each",
            "Brief D: fifty copies of 1B parameters: how many GB? And in one batch?",
            {'"D": "lora", ': '"D": "full", '},
        ),
        Mistake(
            "4 bits where memory is no matter",
            "Brief D: it would do. Which of its numbers is tight?",
            {'"D": "lora", ': '"D": "qlora", '},
        ),
        Mistake(
            "adapters for words that they cannot reach",
            "Brief E: what is in the embedding's row of a new word, before and after?",
            {'"E": "lora and embedding"': '"E": "lora"'},
        ),
        Mistake(
            "full for a few words",
            "Brief E: 8 billion parameters, 16 bytes each. How many GB?",
            {'"E": "lora and embedding"': '"E": "full"'},
        ),
    ),
)
