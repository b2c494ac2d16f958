"""`python -m wantastic.server.demo`: server, gateway, token, device, tunnel, page, live table.

    web site <- gateway <- tunnel <- agent (userspace mode) <- SOCKS5 <- we ask

The server and the agent are the real programs, in processes of their own; this one starts
them, plays the web site and its visitor, and shows what both say of themselves. On a
terminal the table is drawn in place; elsewhere each second gives a line, as text or as
JSON. Ctrl-C or --seconds ends it: the agent first, then the server, then the folder. The
status is 0 when pages came through and both programs ended well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from wantastic.server.demo import table
from wantastic.server.demo.programs import Ended, Programs
from wantastic.server.demo.site import Site, Visitor
from wantastic.server.demo.terminal import foreground

VISIT_EVERY_S = 0.5
SHOW_EVERY_S = 1.0
START_TIMEOUT_S = 60.0


def say(text: str) -> None:
    """Print for whoever watches, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def wait_for(stopping: asyncio.Event, seconds: float) -> None:
    """Wait; shorter when we are to end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


class Demonstration:
    """Everything that runs."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._site = Site()
        self._programs = Programs(folder)
        self._visitor: Visitor | None = None
        self._stopping = asyncio.Event()
        self._began = time.monotonic()

    def stop(self) -> None:
        """End it soon."""
        self._stopping.set()

    async def run(self) -> int:
        """Run until told to stop; return the exit status."""
        problem = ""
        stopping = asyncio.ensure_future(self._stopping.wait())
        starting = asyncio.ensure_future(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await self._go_on()
        except Ended as ended:
            problem = str(ended)
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            statuses = await self._programs.stop()
            await self._site.stop()
        return self._finish(problem, statuses)

    def _step(self, text: str, result: str) -> None:
        if not self._options.json:
            say(f"  {text:40}{result}")

    async def _start(self) -> None:
        programs, site = self._programs, self._site
        await site.start()
        self._step("a web site behind the gateway", f"127.0.0.1:{site.port}")
        await programs.start_server(site.port)
        ports = programs.ports
        self._step("wantastic-server serve", f"gRPC over TLS on 127.0.0.1:{ports['grpc']}")
        await programs.make_token()
        self._step("wantastic-server token create", "for one device, valid for a day")
        await programs.start_agent()
        self._step("wantasticd -config ... -token-file ...", "in userspace mode")
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            programs.check()
            document = await programs.agent_status()
            view = table.AgentView.of(document)
            await programs.keep_proxy(document)
            if view.is_up:
                break
            if time.monotonic() > end:
                raise Ended(f"no tunnel after {START_TIMEOUT_S:.0f} s; agent: {view.state}")
            await asyncio.sleep(0.1)
        self._step("registered, tunnel up", f"{view.address}, handshake in {view.took_ms:.1f} ms")
        programs.find_gateway_address()
        self._visitor = Visitor(programs.proxy_port, programs.gateway_address, site)
        await self._visitor.visit()
        page = self._visitor
        result = (
            f"{len(page.last_page)} bytes in {page.last_ms:.0f} ms" if page.good else page.problem
        )
        self._step(f"http://{programs.gateway_address}/ through SOCKS5", result)
        if page.good and not self._options.json:
            say(f"\n  The page says: {page.text()}\n")

    async def _go_on(self) -> None:
        """Visit the site over and over, and show how it goes."""
        visitor, options = self._visitor, self._options
        assert visitor is not None
        self._began = time.monotonic()
        shown = 0.0
        live = sys.stdout.isatty() and not options.json
        if live:
            await wait_for(self._stopping, 1.5)
        while not self._stopping.is_set():
            began = time.monotonic()
            self._programs.check()
            if began - shown >= SHOW_EVERY_S:
                shown = began
                await self._show(live)
            if options.seconds is not None and began - self._began >= options.seconds:
                break
            await visitor.visit(big=True)
            await wait_for(self._stopping, VISIT_EVERY_S - (time.monotonic() - began))
        await self._show(live)

    async def _show(self, live: bool) -> None:
        visitor = self._visitor
        assert visitor is not None
        programs = self._programs
        state = table.gather(
            await programs.agent_status(),
            await programs.server_view(),
            visitor,
            time.monotonic() - self._began,
        )
        if self._options.json:
            say(json.dumps(state))
        elif live:
            sys.stdout.write(table.screen(state))
            sys.stdout.flush()
        else:
            say(table.line(state))

    def _finish(self, problem: str, statuses: dict[str, int]) -> int:
        visitor = self._visitor
        fetched = visitor is not None and visitor.fetched > 0 and not visitor.wrong
        good = {0}
        if visitor is None and self._stopping.is_set():
            # Whoever ends it before it has started knows why there was no page; a program
            # may not have got as far as to heed SIGTERM.
            fetched, good = True, {0, -signal.SIGTERM}
        ended_well = set(statuses.values()) <= good
        if not problem and not fetched:
            problem = "no page came through the tunnel"
        if not problem and not ended_well:
            problem = "a program ended badly"
        if not self._options.json:
            ends = ", ".join(f"{name} ended with status {s}" for name, s in statuses.items())
            say(f"Stopped: {ends or 'nothing was running'}.")
        if problem:
            sys.stderr.write(f"wantastic demonstration: {problem}\n{self._programs.log_tails()}")
            return 1
        return 0


@contextlib.contextmanager
def state_folder(kept: Path | None) -> Iterator[Path]:
    """Yield a private folder: the one to keep, or a temporary one that goes with us."""
    if kept is not None:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield kept.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="wantastic-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def show(folder: Path, options: argparse.Namespace) -> int:
    """Run the demonstration in a folder."""
    demonstration = Demonstration(folder, options)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, demonstration.stop)
    return await demonstration.run()


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make run", description="Server, gateway and one device, on this machine alone."
    )
    parser.add_argument("--seconds", type=float, help="end by itself after so long")
    parser.add_argument("--json", action="store_true", help="a line of JSON each second")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep everything in DIR (default: temporary)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options = options_of(arguments)
    with state_folder(options.state) as folder, foreground():
        if not options.json:
            kept = "" if options.state else " (removed at the end)"
            say("One control server with its gateway and one device, on this machine alone:")
            say(f"no root, no kernel module, only loopback. Files: {folder}{kept}\n")
        return asyncio.run(show(folder, options))


if __name__ == "__main__":
    sys.exit(main())
