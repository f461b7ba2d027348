"""Claims about where a delta points: overlaps, amplification, how many directions, intruders."""

from statistics import mean

from lorakit.claims.evidence import Row, anatomy
from lorakit.claims.finding import UNKNOWN, Curves, Finding, Lines, decided, point

METHODS = ("full", "r8", "r64")


def _by_seed(rows: list[Row], name: str) -> list[float]:
    """The mean of a number over layers, a seed each."""
    found = sorted({row["seed"] for row in rows})
    return [mean(row[name] for row in rows if row["seed"] == seed) for seed in found]


def _of(base: str, method: str) -> list[Row]:
    return [row for row in anatomy(base)["deltas"] if row["method"] == method]


def overlap(base: str, pair: str) -> Finding:
    rows = [row for row in anatomy(base)["overlaps"] if row["pair"] == pair]
    names = ("1", "8", "all")
    lines: Lines = {
        label: [point(name, _by_seed(rows, key + name)) for name in names]
        for label, key in (("measured", ""), ("random", "random_"))
    }
    first, eight, all_ = (p[1] for p in lines["measured"])
    by_chance = lines["random"][1][1]
    n = len({row["seed"] for row in rows})
    what = "rank 8 and rank 64" if pair == "ranks" else "two runs of rank 64"
    return Finding(
        f"{what}: phi(1, 1) is {first:.2f} (random {lines['random'][0][1]:.2f}), phi(8, 8) "
        f"{eight:.2f} ({by_chance:.2f}), over all directions {all_:.2f} "
        f"({lines['random'][2][1]:.2f})",
        decided(first > 0.5 > eight if pair == "ranks" else eight > 3 * by_chance, n),
        n,
        f"anatomy-{base}.json",
        Curves("directions of each", "overlap phi", lines),
    )


def amplifies(base: str) -> Finding:
    """In the delta's directions W has little, the delta much."""
    lines: Lines = {}
    for label, key in {"of the delta": "in_delta", "of W": "in_W", "random": "in_random"}.items():
        lines[label] = [point(method, _by_seed(_of(base, method), key)) for method in METHODS]
    factors = {m: mean(_by_seed(_of(base, m), "factor")) for m in METHODS}
    inside, own, chance = ({p[0]: p[1] for p in line} for line in lines.values())
    n = len({row["seed"] for row in anatomy(base)["deltas"]})
    hidden = all(chance[m] < inside[m] < own[m] / 2 for m in ("r8", "r64"))
    return Finding(
        f"norm of W in rank 8's directions {inside['r8']:.2g}, in its own {own['r8']:.2g}, in "
        f"random ones {chance['r8']:.2g}; the delta is "
        + ", ".join(f"{value:.2g} times ({m})" for m, value in factors.items())
        + " as large as W there",
        decided(hidden and factors["r8"] > 1, n),
        n,
        f"anatomy-{base}.json",
        Curves("method", "norm of W in eight directions", lines, (False, True)),
    )


def full_is_high_rank(base: str) -> Finding:
    lines: Lines = {
        "measured": [point(m, _by_seed(_of(base, m), "rank_90")) for m in METHODS],
        "random": [point(m, _by_seed(_of(base, m), "random_rank_90")) for m in METHODS],
        "stable rank": [point(m, _by_seed(_of(base, m), "stable_rank")) for m in METHODS],
    }
    found = {p[0]: p[1] for p in lines["measured"]}
    n = len({row["seed"] for row in anatomy(base)["deltas"]})
    return Finding(
        "values that hold 90% of the energy: "
        + ", ".join(f"{name} {value:.0f}" for name, value in found.items())
        + f"; random {lines['random'][0][1]:.0f}; stable rank of full "
        f"{lines['stable rank'][0][1]:.1f}",
        # Where not even chance gets there, nothing can be said.
        decided(found["full"] >= 10 * 8, n) if lines["random"][0][1] >= 10 * 8 else UNKNOWN,
        n,
        f"anatomy-{base}.json",
        Curves("method", "singular values", lines, (False, True)),
    )


def has_intruders(base: str) -> Finding:
    lines: Lines = {
        "of the first ten": [point(m, _by_seed(_of(base, m), "intruders")) for m in METHODS]
    }
    found = {p[0]: p[1] for p in lines["of the first ten"]}
    cosines = {m: mean(_by_seed(_of(base, m), "cosine")) for m in METHODS}
    chance = mean(row["random_cosine"] for row in _of(base, "full"))
    n = len({row["seed"] for row in anatomy(base)["deltas"]})
    return Finding(
        "of the first ten directions, intruders: "
        + ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        + "; mean largest cosine "
        + ", ".join(f"{name} {value:.2f}" for name, value in cosines.items())
        + f" (a random direction: {chance:.2f}, always an intruder)",
        decided(found["full"] < 0.1 and found["r8"] > 0.5, n),
        n,
        f"anatomy-{base}.json",
        Curves("method", "intruders", lines),
    )
