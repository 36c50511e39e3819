"""The options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = click.argument("run", required=False, type=click.Path(path_type=Path))


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command those that select episodes."""
    for option in (
        click.option("--marked", is_flag=True, help="Only those that were marked during the training."),
        click.option("--ended", metavar="HOW", help="Only terminated, truncated, interrupted or errored ones."),
        click.option("--where", metavar="TEXT", help='Only those for which it holds: "return > 200 and length < 50".'),
        click.option("--trigger", metavar="NAME", help="capped-cubic, or module:function of your own."),
        click.option("--last", metavar="N", type=click.IntRange(min=1), help="The last N that came to an end."),
        click.option("--percentile", metavar="LIST", help="By return: 10,50,90."),
        click.option("--median", is_flag=True, help="The one in the middle by return."),
        click.option("--worst", metavar="N", type=click.IntRange(min=1), help="The N lowest returns."),
        click.option("--best", metavar="N", type=click.IntRange(min=1), help="The N highest returns."),
        click.option("--every", metavar="N", type=click.IntRange(min=1), help="Episodes whose number N divides."),
        click.option("--episodes", metavar="LIST", help="0,250,-1 or 100:200:10 or 3.250 or all; they unite."),
    ):
        command = option(command)
    return command


def reexecuting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command those that say how episodes are re-executed, and told of."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object an episode, on stdout."),
        click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, help="How far a reward may be off."),
        click.option("--trust", is_flag=True, help="Let a log that isn't yours import and run what it names."),
        click.option(
            "--import", "imports", metavar="PKG", multiple=True, help="Let it import this package; repeatable."
        ),
        click.option("--origin", metavar="NAME", help="Start by this alone: seed, rng, snapshot, chain, chain:N, …"),
        click.option("--env", metavar="CODE", help="module:factory or file.py:factory that makes the env."),
        click.option(
            "--jobs", metavar="N", type=click.IntRange(min=1), help="Processes at a time.  [default: the cores]"
        ),
    ):
        command = option(command)
    return command


def json_object(_: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """Reads an option's JSON object; None where it was not given."""
    if text is None:
        return None
    hint = parameter.opts[0]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"expected a JSON object, found {text!r}: {error}", param_hint=hint) from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"expected a JSON object, found {text!r}", param_hint=hint)
    return found


def looking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command those that say what videos show."""
    for option in (
        click.option("--draft", is_flag=True, help="MuJoCo without multisampling: faster, and other pixels."),
        click.option("--reel", is_flag=True, help="All of them one after another, in one video."),
        click.option("--grid", metavar="RxC", help="Side by side, in so many rows and columns: 2x2."),
        click.option("--hold", metavar="S", type=float, default=0.0, help="Seconds more of each episode's last frame."),
        click.option("--rewards", is_flag=True, help="The curve of the rewards below the frames."),
        click.option("--label", is_flag=True, help="Episode, step, reward and return below the frames."),
        click.option(
            "--render-kwargs",
            metavar="JSON",
            callback=json_object,
            help='Arguments for the env, to draw otherwise: {"camera_name": "top"}.',
        ),
        click.option("--size", metavar="WxH", help="The video's size: 640x480."),
        click.option("--steps", metavar="A:B", help="Only these frames of each episode: 400:600, :100, -100:."),
        click.option("--speed", metavar="X", type=float, default=1.0, help="X times as fast."),
    ):
        command = option(command)
    return command
