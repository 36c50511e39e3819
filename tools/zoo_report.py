"""The zoo's results as people read them: a table an env, a summary a family, and what to look into."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING, Any

from zoo_envs import FAMILIES, RUNGS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Result = dict[str, Any]
COLUMNS = (
    *("family", "env", "episodes", "unchanged", "live alike", *RUNGS, "ladder", "by", "drawn", "frames", "lies"),
    "remarks",
)
"""`unchanged`: recorded as unrecorded; `live alike`: episodes that drawing each frame leaves as they are."""

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


def row(result: Result) -> list[str]:
    """Returns a result's row, as `COLUMNS` names it."""
    same, compared = frames(result)
    rungs = []
    for rung in RUNGS:
        told = result["rungs"].get(rung, {})
        rungs.append(count(told["results"]) if "results" in told else "?")
    return [
        FAMILIES[result["family"]].title,
        result["env"],
        str(result["episodes"]),
        unchanged(result),
        f"{result['live_same']}/{result['episodes']}",
        *rungs,
        count(ladder(result)),
        ", ".join(f"{name} {many}" for name, many in origins(ladder(result)).most_common()),
        f"{len(drawn(result))}/{len(result['film'])}" if result["film"] else "–",
        f"{same}/{compared}" if compared else "–",
        str(len(lies(result))),
        remarks(result),
    ]


def line(result: Result) -> str:
    """Returns a result in one line, for who waits."""
    told = dict(zip(COLUMNS, row(result), strict=True))
    names = ("unchanged", *RUNGS, "ladder", "drawn", "frames", "lies")
    facts = "  ".join(f"{name} {told[name]}" for name in names)
    seconds = sum(result["seconds"].values())
    return f"{told['family']}  {told['env']}  [{seconds:.0f} s]  {facts}  {told['remarks']}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(results: list[Result]) -> str:
    """Returns the families, a row each, as the README shows them."""
    rows = []
    short = [result for result in results if result["episode"] is None]
    groups = [(family.title, [found for found in short if found["family"] == key]) for key, family in FAMILIES.items()]
    for title, group in [*groups, ("**all**", short)]:
        if not group:
            continue
        told = [episode for result in group for episode in ladder(result)]
        films = sum(len(result["film"]) for result in group)
        pairs = [frames(result) for result in group]
        by = ", ".join(f"{name} {many}" for name, many in origins(told).most_common())
        rows.append(
            [
                title,
                str(len(group)),
                str(sum(result["episodes"] for result in group)),
                count(told),
                by,
                f"{sum(len(drawn(result)) for result in group)}/{films}",
                f"{sum(same for same, _ in pairs):,}/{sum(compared for _, compared in pairs):,}",
                str(sum(len(lies(result)) for result in group)),
            ]
        )
    head = ("family", "envs", "episodes", "exact", "started again from", "drawn, exact", "frames as live", "lies")
    return table(head, rows)


def snapshots(results: list[Result]) -> str:
    """Returns what snapshots cost, beside what the steps take: a row an env that has any."""
    rows = []
    for result in results:
        stored = result["storage"]
        if stored.get("snapshots"):
            times = 1 + stored["snapshot_bytes"] / stored["step_bytes"]
            without = stored["file"] / (stored["file"] - stored["snapshot_bytes"])
            cells = (
                result["env"],
                stored["steps"],
                stored["step_bytes"],
                stored["snapshots"],
                stored["snapshot_bytes"],
            )
            rows.append(
                [*(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells), f"{times:.2f}", f"{without:.2f}"]
            )
    head = ("env", "steps", "bytes of steps", "snapshots", "their bytes", "steps with / without", "file with / without")
    return table(head, rows)


def write(results: list[Result], folder: Path) -> None:
    """Writes zoo.md and zoo.csv."""
    order = {key: at for at, key in enumerate(FAMILIES)}
    results = sorted(results, key=lambda result: (order[result["family"]], result["env"]))
    short, long = ([result for result in results if (result["episode"] is None) is kind] for kind in (True, False))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "zoo.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", *COLUMNS))
        writer.writerows(("short", *row(result)) for result in short)
        writer.writerows(("long", *row(result)) for result in long)
    changed = [result["env"] for result in results if unchanged(result) == "NO"]
    versions = {pair for result in results for pair in result["storage"].get("versions", {}).items()}
    parts = [
        INTRO,
        "## Families\n",
        summary(results),
        f"\nTrainings that recording changed: {', '.join(changed) or 'none'}.",
        "\n## Envs\n",
        table(COLUMNS, map(row, short)),
    ]
    if long:
        parts += [
            "\n## Long runs\n\nEpisode 1,000 of a training with `Autoreset` above the recorder, full length.\n",
            table(COLUMNS, map(row, long)),
        ]
    if any(result["storage"].get("snapshots") for result in long):
        parts += ["\n## What snapshots cost\n\nFull episodes.\n", snapshots(long)]
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions) if name != "platform")
    parts.append(f"\n## Versions\n\n{named}\n")
    (folder / "zoo.md").write_text("\n".join(parts))
