"""The build cache: each stage has a folder named after a hash of everything that went into it.

A folder with a `.done` file is complete and is used as it is. One without is a stage that was
interrupted: stages made of single compiler runs resume there (each object appears by rename, and
belongs to the same inputs by the folder's name), the others start again. A lock file lets several
builds share one cache. Nothing is ever removed here; `rm -rf build/cache` is always safe.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LOG_TAIL_LINES = 30


class BuildError(Exception):
    """A stage failed; the message says which, and where its log is."""


def sha256_of(data: bytes) -> str:
    """Return the hash in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the hash of a file's contents in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(paths: Iterable[Path], base: Path) -> str:
    """Return one hash over names (relative to `base`) and contents of the files."""
    rows = [f"{path.relative_to(base)} {hash_file(path)}" for path in sorted(paths)]
    return sha256_of("\n".join(rows).encode())


def recipe_of(*modules: ModuleType) -> str:
    """Return a hash of what the modules do; comments and layout do not count."""
    trees = [ast.dump(ast.parse(Path(str(m.__file__)).read_text())) for m in modules]
    return sha256_of("\n".join(trees).encode())


@dataclass(frozen=True)
class Unit:
    """One compiler run: `command` gets `-c SOURCE -o OBJECT` appended."""

    source: Path
    name: str
    """The object's file name: made from the whole path, since folders repeat base names."""
    command: tuple[str, ...]


class Cache:
    """The folder of stages, and how a stage runs its tools."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.root = root
        self.jobs = jobs
        root.mkdir(parents=True, exist_ok=True)

    def stage(
        self,
        name: str,
        inputs: Mapping[str, object],
        recipe: Callable[[Path], None],
        *,
        resume: bool = False,
    ) -> Path:
        """Return the folder that `recipe` fills from exactly these inputs; run it if need be."""
        text = json.dumps(inputs, sort_keys=True, indent=1)
        folder = self.root / f"{name}-{sha256_of(text.encode())[:12]}"
        done = folder / ".done"
        if done.exists():
            return folder
        with (self.root / f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if done.exists():
                return folder
            if folder.exists() and not resume:
                shutil.rmtree(folder)
            folder.mkdir(exist_ok=True)
            (folder / "inputs.json").write_text(text)
            say(f"{name} ...")
            begin, cpu = time.monotonic(), cpu_s()
            recipe(folder)
            done.write_text(text)
            took = f"{time.monotonic() - begin:.0f} s, {cpu_s() - cpu:.0f} s of CPU"
            say(f"{name} done in {took}")
        return folder

    def run(
        self,
        log: Path,
        command: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run one tool, its output going to `log`; raise BuildError with the end of it."""
        with log.open("ab") as out:
            out.write(f"$ {' '.join(map(str, command))}\n".encode())
            out.flush()
            result = subprocess.run(
                list(map(str, command)),
                cwd=cwd,
                env=None if env is None else {**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if result.returncode:
            tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            raise BuildError(
                "\n".join([*tail, f"failed ({result.returncode}): {command[0]}", f"log: {log}"])
            )

    def compile(
        self, folder: Path, units: Sequence[Unit], env: Mapping[str, str], cwd: Path | None = None
    ) -> list[Path]:
        """Compile what is not there yet, `jobs` at a time; return the objects in order."""
        objects = [folder / unit.name for unit in units]
        if len(set(objects)) != len(objects):
            raise BuildError(f"two sources share an object name in {folder}")
        todo = [
            (u, o, n) for n, (u, o) in enumerate(zip(units, objects, strict=True)) if not o.exists()
        ]
        environment = {**os.environ, **env}

        def one(row: tuple[Unit, Path, int]) -> None:
            unit, target, number = row
            part = target.with_suffix(".part.o")
            command = [*unit.command, "-c", str(unit.source), "-o", str(part)]
            done = subprocess.run(
                command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                end = "\n".join(done.stderr.splitlines()[:LOG_TAIL_LINES])
                raise BuildError(f"{end}\nfailed: {' '.join(command)}")
            part.rename(target)
            if number % 50 == 0 and len(units) > 50:
                say(f"  {folder.name}: {number} of {len(units)}")

        with ThreadPoolExecutor(self.jobs) as pool:
            for _ in pool.map(one, todo):
                pass
        return objects


def cpu_s() -> float:
    """Return the processor time that this process and its ended children have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
