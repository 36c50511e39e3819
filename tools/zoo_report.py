"""The zoo's results as people read them: a row an env, a summary a family, and what to look into.

zoo.csv holds all that has been found, over machines and versions; a new result replaces its env's row. zoo.md is
made from it.
"""

from __future__ import annotations

import csv
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_envs import FAMILIES, RUNGS

if TYPE_CHECKING:
    from collections.abc import Iterable

Result = dict[str, Any]
Row = dict[str, str]
COLUMNS = (
    *("family", "env", "episodes", "unchanged", "live alike", *RUNGS, "ladder", "by", "drawn", "frames", "lies"),
    *("commit", "remarks"),
)
"""`unchanged`: recorded as unrecorded; `live alike`: episodes that drawing each frame leaves as they are."""
STORED = ("steps", "step_bytes", "snapshots", "snapshot_bytes", "file", "versions")
"""What zoo.csv has besides: what the recording took on disk, and what it was made with."""

INTRO = """\
# The env zoo

Written by `tools/zoo.py`, which says how. Random actions; resets with the seeds 11, none, none, none, 7, none;
observations, rewards, endings, infos and the global random states compared at each step; replays in another process.

- **unchanged**: the recorded training was, to the bit, the unrecorded one (under `reseed=True` it need not be);
  varies: the env itself goes different ways from the same seed, unrecorded, in different processes.
- **live alike**: episodes that went the same way when each frame was drawn live; only their frames can be compared.
- **seed … chain:first**: exact, of those that have this origin, started from it alone; –: none has it.
- **ladder**, **by**: exact as the ladder chooses, undrawn, and from which rungs. **drawn**: exact, and in a
  video of its plain name.
- **frames**: as drawn live to the last pixel, of those compared; GL's are compared on one driver.
- **commit**: of this package, that it was found with; –: before that was noted.
- **lies**: said to be exact, but the steps or the number of frames were others, or the pixels where no GL draws.
  Must be 0.
"""


def lies(result: Result) -> list[str]:
    """Returns what was said to be exact and is not, a line each."""
    found = [
        f"{rung}: episode {episode['episode']} is called exact but went another way"
        for rung, told in result["rungs"].items()
        for episode in told.get("results", [])
        if episode["verdict"] == "exact" and not episode["went_the_same_way"]
    ]
    for film in result["film"]:
        if film["verdict"] != "exact" or not film.get("plain"):
            continue
        name = f"video of episode {film['episode']}"
        if not film["went_the_same_way"]:
            found.append(f"{name}: went another way")
        if film["decoded"] != film["length"] + 1:
            found.append(f"{name}: {film['decoded']} frames of {film['length'] + 1}")
        if film["different"] and not result["gl"]:
            found.append(f"{name}: frames {film['different']} are not as drawn live")
    return found


def flaws(result: Result) -> list[str]:
    """Returns the lies, and whether recording changed the training."""
    return [*lies(result), *(["recording changed the training"] if unchanged(result) == "NO" else [])]


def perfect(result: Result) -> bool:
    """Says whether every episode was exact, undrawn and drawn, and nothing failed."""
    exact = [episode["verdict"] == "exact" for episode in (*ladder(result), *result["film"])]
    return not result["failed"] and len(exact) == 2 * result["episodes"] and all(exact)


def unchanged(result: Result) -> str:
    """Says whether recording left the training as it was."""
    if result["unchanged"] or not result["episodes"]:
        return "yes" if result["episodes"] else "–"
    return "reseeded" if result["reseed"] else "varies" if result["varies"] else "NO"


def count(results: Iterable[Result]) -> str:
    """Returns "exact/applicable", or a dash where none is applicable."""
    verdicts = Counter(result["verdict"] for result in results)
    applicable = verdicts.total() - verdicts["impossible"]
    return f"{verdicts['exact']}/{applicable}" if applicable else "–"


def origins(results: Iterable[Result]) -> Counter[str]:
    """Returns from what the exact ones were started."""
    return Counter(str(result["origin"]) for result in results if result["verdict"] == "exact")


def drawn(result: Result) -> list[Result]:
    """Returns the exact videos."""
    return [film for film in result["film"] if film["verdict"] == "exact" and film.get("plain")]


def frames(result: Result) -> tuple[int, int]:
    """Returns how many frames were as drawn live, and how many were compared."""
    compared = [film for film in drawn(result) if film["comparable"]]
    return sum(film["same"] for film in compared), sum(film["decoded"] for film in compared)


def ladder(result: Result) -> list[Result]:
    """Returns what the ladder made of the episodes."""
    found: list[Result] = result["rungs"].get("ladder", {}).get("results", [])
    return found


def remarks(result: Result) -> str:
    """Returns what else there is to say, in one line."""
    found = ["its recipe can't be followed: replayed with env="] if result["factory"] else []
    found += [f"{mode}: {why}" for mode, why in result["failed"].items()]
    found += [f"{rung}: {told['failed']}" for rung, told in result["rungs"].items() if "failed" in told]
    found += lies(result)
    for kind, told in (("ladder", ladder(result)), ("drawn", result["film"])):
        bad = [episode for episode in told if episode["verdict"] != "exact"]
        if bad:
            found.append(f"{kind}: {len(bad)} not exact, such as {bad[0]['episode']}: {bad[0]['error']}")
        elif any(episode["error"] for episode in told):
            found.append(f"{kind}: {next(episode['error'] for episode in told if episode['error'])}")
    pixels = [film for film in drawn(result) if film["different"] and result["gl"]]
    found += [f"GL pixels of episode {film['episode']} differ at {film['different']}" for film in pixels[:1]]
    text = "; ".join(found)
    return " ".join(text.replace("|", "/").split())[:300]


def row(result: Result) -> Row:
    """Returns a result's row."""
    same, compared = frames(result)
    found = {
        "kind": "short" if result["episode"] is None else "long",
        "family": FAMILIES[result["family"]].title,
        "env": result["env"],
        "episodes": str(result["episodes"]),
        "unchanged": unchanged(result),
        "live alike": f"{result['live_same']}/{result['episodes']}",
        "ladder": count(ladder(result)),
        "by": counted(origins(ladder(result))),
        "drawn": f"{len(drawn(result))}/{len(result['film'])}" if result["film"] else "–",
        "frames": f"{same}/{compared}" if compared else "–",
        "lies": str(len(lies(result))),
        "commit": result.get("commit", "–"),
        "remarks": remarks(result),
    }
    for rung in RUNGS:
        told = result["rungs"].get(rung, {})
        found[rung] = count(told["results"]) if "results" in told else "?"
    stored = result["storage"]
    versions = stored.get("versions", {})
    named = (f"{name} {version}" for name, version in sorted(versions.items()) if name != "platform")
    return {**found, **{name: str(stored.get(name, "")) for name in STORED}, "versions": ", ".join(named)}


def counted(many: Counter[str]) -> str:
    """Returns a tally as text: "rng 4, seed 2"."""
    return ", ".join(f"{name} {number}" for name, number in many.most_common())


def uncounted(text: str) -> Counter[str]:
    """Returns the tally that a text is of."""
    return Counter({name: int(number) for name, number in re.findall(r"(\S+) (\d+)", text)})


def share(text: str) -> tuple[int, int]:
    """Returns the two numbers of "4/6"; none of none for a dash."""
    first, _, second = text.partition("/")
    return (int(first), int(second)) if second else (0, 0)


def line(result: Result) -> str:
    """Returns a result in one line, for who waits."""
    told = row(result)
    names = ("unchanged", *RUNGS, "ladder", "drawn", "frames", "lies")
    facts = "  ".join(f"{name} {told[name]}" for name in names)
    seconds = sum(result["seconds"].values())
    return f"{told['family']}  {told['env']}  [{seconds:.0f} s]  {facts}  {told['remarks']}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(rows: Iterable[Row]) -> str:
    """Returns the families, a row each, as the README shows them."""
    short = [row for row in rows if row["kind"] == "short"]
    groups = [(family.title, [row for row in short if row["family"] == family.title]) for family in FAMILIES.values()]
    lines = []
    for title, group in [*groups, ("**all**", short)]:
        if not group:
            continue
        by = sum((uncounted(row["by"]) for row in group), Counter[str]())
        sums = {name: [sum(pair) for pair in zip(*(share(row[name]) for row in group), strict=True)] for name in SHARES}
        lines.append(
            [
                title,
                str(len(group)),
                str(sum(int(row["episodes"]) for row in group)),
                *(f"{sums[name][0]:,}/{sums[name][1]:,}" if name != "by" else counted(by) for name in SHOWN),
                str(sum(int(row["lies"]) for row in group)),
            ]
        )
    head = ("family", "envs", "episodes", "exact", "started again from", "drawn, exact", "frames as live", "lies")
    return table(head, lines)


SHARES = ("ladder", "drawn", "frames")
SHOWN = ("ladder", "by", "drawn", "frames")


def snapshots(rows: Iterable[Row]) -> str:
    """Returns what snapshots cost, beside what the steps take: a row an env that has any."""
    lines = []
    for row in rows:
        if not int(row["snapshots"] or 0):
            continue
        steps, step_bytes, many, taken, file = (int(row[name]) for name in STORED[:-1])
        numbers = (f"{number:,}" for number in (steps, step_bytes, many, taken))
        lines.append([row["env"], *numbers, f"{1 + taken / step_bytes:.2f}", f"{file / (file - taken):.2f}"])
    head = ("env", "steps", "bytes of steps", "snapshots", "their bytes", "steps with / without", "file with / without")
    return table(head, lines)


def read(folder: Path) -> list[Row]:
    """Reads what zoo.csv holds."""
    path = folder / "zoo.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [dict.fromkeys(STORED, "") | {"commit": "–"} | row for row in csv.DictReader(file)]


def write(results: list[Result], folder: Path) -> list[Row]:
    """Brings zoo.csv up to date, and zoo.md after it; returns all rows."""
    titles = [family.title for family in FAMILIES.values()]
    found = {(row["kind"], row["family"], row["env"]): row for row in (*read(folder), *map(row, results))}
    rows = sorted(found.values(), key=lambda row: (titles.index(row["family"]), row["env"]))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "zoo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("kind", *COLUMNS, *STORED))
        writer.writeheader()
        writer.writerows(rows)
    short, long = ([row for row in rows if row["kind"] == kind] for kind in ("short", "long"))
    changed = [row["env"] for row in rows if row["unchanged"] == "NO"]
    versions = sorted({version for row in rows for version in row["versions"].split(", ") if version})
    parts = [
        INTRO,
        "## Families\n",
        summary(short),
        f"\nTrainings that recording changed: {', '.join(changed) or 'none'}.",
        "\n## Envs\n",
        table(COLUMNS, ([row[name] for name in COLUMNS] for row in short)),
    ]
    if long:
        parts += [
            "\n## Long runs\n\nEpisode 1,000 of a training with `Autoreset` above the recorder, full length.\n",
            table(COLUMNS, ([row[name] for name in COLUMNS] for row in long)),
        ]
    if any(int(row["snapshots"] or 0) for row in long):
        parts += ["\n## What snapshots cost\n\nFull episodes.\n", snapshots(long)]
    parts.append(f"\n## Versions\n\n{', '.join(versions)}\n")
    (folder / "zoo.md").write_text("\n".join(parts))
    return rows


def commit() -> str:
    """Returns the commit that is checked out, with a "+" where files differ from it; a dash outside of a clone."""
    here = Path(__file__).parent
    git = ("git", "-C", str(here))
    name = subprocess.run((*git, "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=False)
    differs = subprocess.run((*git, "diff", "--quiet", "HEAD", "--", "../src"), capture_output=True, check=False)
    return f"{name.stdout.strip()}{'+' * bool(differs.returncode)}" if name.returncode == 0 else "–"
