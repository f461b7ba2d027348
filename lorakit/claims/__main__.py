"""Judge every claim from the raw rows, and draw what was found."""

import argparse
import json
from functools import partial
from pathlib import Path

from lorakit.claims import judge
from lorakit.files import write_rows
from lorakit.plots import draw_claim, save_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    claims = json.loads(json.dumps(judge(), allow_nan=False))
    folder = out.with_suffix("")
    for claim in claims:
        for base in ("mini", "smollm2"):
            if claim[base] and claim[base]["curves"]:
                name = claim["name"].replace(", ", "-").replace(" ", "-")
                claim[base]["picture"] = f"{folder.name}/{name}-{base}.png"
                folder.mkdir(parents=True, exist_ok=True)
                draw = partial(draw_claim, curves=claim[base]["curves"])
                save_picture(out.parent / claim[base]["picture"], draw, width=700, height=360)
    write_rows(out, {"command": f"python -m lorakit.claims {out}"}, {"claims": claims})


if __name__ == "__main__":
    main()
