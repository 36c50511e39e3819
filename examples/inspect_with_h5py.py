"""Reads a segment with h5py alone: the log is yours, with or without reenact.

python examples/inspect_with_h5py.py runs/cartpole-training/segment-00000.h5
"""

import json
import sys
from zlib import crc32

import h5py

ENDED = ("nothing", "terminated", "truncated", "interrupted", "errored")


def main(path: str) -> None:
    """Prints the segment's attributes and its first episodes."""
    # a segment that is still being written, or whose writer was killed, opens with swmr=True
    with h5py.File(path, "r", locking=False) as file:
        text = {name: value.decode() for name, value in file.attrs.items() if isinstance(value, bytes)}
        print(f"format {text['format']} {file.attrs['version']}, run {text['run']}")
        print(f"env {json.loads(text['recipe'])['id']}, recorded with {text['versions']}")
        columns = json.loads(text["columns"])
        apart = int(file.attrs["batch_width"])  # of a vector env, the steps of its lanes lie side by side
        for row in file["episodes"][:5]:
            first, count = int(row["first_step"]), int(row["n_actions"])
            its = slice(first, first + count * apart, apart)
            rewards, actions = file["steps/reward"][its], file["steps/action/value"][its]
            assert crc32(actions.tobytes()) == row["column_crcs"][columns.index("action/value")]
            assert rewards.sum() == row["return"]
            print(f"{ENDED[row['ended']]} after {row['length']} steps, return {row['return']}, {actions[:8]} …")


if __name__ == "__main__":
    main(sys.argv[1])
