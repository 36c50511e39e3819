"""What tells one's own logs from a stranger's: signatures (HMAC) with a key that each user has.

Signed are the recipe and, one by one, what could do harm besides: reset options, which an env may take for the
name of something to import, and snapshots that a simulator's own parser reads.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import secrets
from pathlib import Path


def sign(content: str | bytes) -> str:
    """Returns the signature of something under this user's key."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hmac.new(_key(), data, hashlib.sha256).hexdigest()


def is_mine(content: str | bytes, signature: str) -> bool:
    """Whether this user signed it."""
    return hmac.compare_digest(sign(content).encode(), signature.encode("utf-8", "surrogatepass"))


def unkept() -> str | None:
    """Returns why what is signed is this process's alone, since the user's key can't be kept; None: it can be."""
    return _key_in(_state())[1]


def _key() -> bytes:
    """The user's key, made at first use; where no folder can be written, one for this process alone."""
    return _key_in(_state())[0]


def _state() -> str:
    return os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")


@functools.cache  # verifying thousands of episodes asks for it each time
def _key_in(state: str) -> tuple[bytes, str | None]:
    path = Path(state) / "reenact" / "key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".key.{os.getpid()}")
        if path.exists() and path.stat().st_size != _KEY_BYTES:  # a crash lost it: an empty one is anybody's
            path.unlink()
        if not path.exists():
            partial.write_bytes(secrets.token_bytes(_KEY_BYTES))
            partial.chmod(0o600)
            try:
                os.link(partial, path)  # of two processes, both end up with the first one's
            except FileExistsError:
                pass
            except OSError:
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return path.read_bytes(), None
    except OSError as error:
        return _PROCESS_KEY, f"{path} can't be kept ({error.strerror or error})"


_KEY_BYTES = 32
_PROCESS_KEY = secrets.token_bytes(_KEY_BYTES)
