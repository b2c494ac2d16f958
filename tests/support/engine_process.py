"""An engine in a process (and network namespace) of its own, driven by lines of JSON.

`python -m tests.support.engine_process` reads one call a line,
    ["set_peer", ["hex:..."], {"endpoint": ["10.0.0.2", 51820]}]
and answers {"result": ...} or {"error": "OSError", "text": "..."}.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from types import TracebackType
from typing import Any

PREFIX = "bytes:"


def encode(value: Any) -> Any:
    """Make a value fit for JSON: bytes as marked base64, sets as lists."""
    if isinstance(value, bytes):
        return PREFIX + base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encode(v) for v in value]
    return value


def decode(value: Any) -> Any:
    """Undo encode(); lists stay lists."""
    if isinstance(value, str) and value.startswith(PREFIX):
        return base64.b64decode(value[len(PREFIX) :])
    if isinstance(value, dict):
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value


class EngineError(RuntimeError):
    """What a call raised over there: the class's name and its text."""


class EngineProcess:
    """The near side: each method call is one line there and back."""

    def __init__(
        self,
        netns: str | None = None,
        old_kernel: bool = False,
        preload: str | None = None,
        **arguments: Any,
    ) -> None:
        command = [sys.executable, "-m", "tests.support.engine_process"]
        if old_kernel:
            command.append("old_kernel")
        if preload:
            command = ["env", f"LD_PRELOAD={preload}", *command]
        if netns:
            command = ["ip", "netns", "exec", netns, *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.call("__init__", **arguments)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process in its own way; it stops the engine."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method over there."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([method, encode(args), encode(kwargs)]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"the engine's process ended with {self.process.wait(5)}")
        answer = decode(json.loads(line))
        if "error" in answer:
            raise EngineError(f"{answer['error']}: {answer['text']}")
        return answer["result"]

    def __getattr__(self, method: str) -> Any:
        return lambda *args, **kwargs: self.call(method, *args, **kwargs)

    @property
    def pid(self) -> int:
        return self.process.pid


def serve() -> None:
    """The far side."""
    from cext.engine import engine as module

    if "old_kernel" in sys.argv[1:]:
        from tests.support.old_kernel import pretend

        pretend()
    engine: Any = None
    for line in sys.stdin:
        method, args, kwargs = decode(json.loads(line))
        try:
            if "disable" in kwargs:
                kwargs["disable"] = frozenset(kwargs["disable"])
            if "allowed_ips" in kwargs:
                kwargs["allowed_ips"] = tuple(kwargs["allowed_ips"])
            if kwargs.get("endpoint") is not None:
                kwargs["endpoint"] = module.Endpoint(*kwargs["endpoint"])
            if method == "__init__":
                engine = module.Engine(**kwargs)
                engine.start()
                result: Any = None
            else:
                result = getattr(engine, method)(*args, **kwargs)
            answer = {"result": encode(result)}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)
    if engine is not None:
        engine.stop()


if __name__ == "__main__":
    serve()
