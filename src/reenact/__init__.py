"""Logs every episode of a Gymnasium training run, and turns any of them into a video afterwards."""

from reenact.recorder import Recorder
