"""What one process knows of devices without asking the database, and who waits for news.

Theory of operation. A poll that finds nothing new must cost no database read. The
directory keeps a small entry for each device that was asked for, read once; a follower
thread hears of changes (database.Signal), reads what changed, and hands it to the event
loop, which drops the entries that are no longer right and wakes whoever waits for them.

  entry absent   read it once, shared by all who ask meanwhile; when a change to it
                 arrives during the read, it is read again
  entry present  right as of the last change heard of: at most SQLITE_POLL_S behind on
                 SQLite, one NOTIFY behind on PostgreSQL
  signal broken  the directory keeps nothing (every poll reads) until it hears again

A change that concerns all devices of a tenant wakes them spread over time, so that a
fleet does not come back in one instant. Everything but the follower thread runs in the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from wantastic.server import configuration, devices
from wantastic.server.database import Database, Signal
from wantastic.server.records import Change, Common, DirectoryEntry, RefusalCode, Refused

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Listener = Callable[[Sequence[Change] | None], None]

MAX_ENTRIES = 2_000_000
MAX_QUEUED_CALLS = 2_000
RECONNECT_S = 1.0
DEAF_WAIT_S = 5.0
WOKEN_PER_S = 500


class Worker:
    """Runs blocking database work in threads, and refuses when too much is queued."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="database")
        self._queued = 0

    @property
    def queued(self) -> int:
        """Calls that wait or run."""
        return self._queued

    async def run(self, work: Callable[[], Result]) -> Result:
        """Call `work` in a thread."""
        if self._queued >= MAX_QUEUED_CALLS:
            raise Refused(
                RefusalCode.UNAVAILABLE,
                "the server has more to do than it can",
                retry_after_s=random.uniform(2, 10),
            )
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except DBAPIError as error:
            log.error("database failed", extra={"error": str(error.orig)})
            raise Refused(
                RefusalCode.UNAVAILABLE,
                "the server's database does not answer",
                retry_after_s=random.uniform(2, 10),
            ) from None
        finally:
            self._queued -= 1

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()


class Directory:
    """Entries by device number, and waiters."""

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker
        self._entries: dict[int, DirectoryEntry] = {}
        self._loading: dict[int, asyncio.Task[DirectoryEntry | None]] = {}
        self._dirty: dict[int, int] = {}
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._tenant_of_waiting: dict[int, str] = {}
        self._listeners: list[Listener] = []
        self._hears = False
        self._released = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reset = 0
        self.common = Common(0, "", {}, ())
        self.reads = 0

    @property
    def hears(self) -> bool:
        """Whether changes are heard of."""
        return self._hears

    @property
    def waiters(self) -> int:
        """Streams and long polls that wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def entries(self) -> int:
        """Devices known without a read."""
        return len(self._entries)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with changes as they are heard of; None: anything may have changed."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin to follow changes; returns when the first look has been taken."""
        self._loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        self._listeners.append(lambda _: heard.set())
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()
        await heard.wait()
        self._listeners.pop()

    async def stop(self) -> None:
        """Stop following and let go of all waiters."""
        self._stopping.set()
        self.release_waiters()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    # -- asking --

    def cached(self, pk: int) -> DirectoryEntry | None:
        """Return an entry that needs no read."""
        return self._entries.get(pk)

    async def entry(self, pk: int) -> DirectoryEntry:
        """Return the entry of a device; refuse a device that is not there."""
        entry = self._entries.get(pk)
        if entry is not None:
            return entry
        task = self._loading.get(pk)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(pk))
            self._loading[pk] = task
            task.add_done_callback(lambda _: self._loading.pop(pk, None))
        entry = await asyncio.shield(task)
        if entry is not None:
            return entry
        known = await self._worker.run(self._last_pk)
        if pk <= known:
            raise Refused(
                RefusalCode.DEVICE_REMOVED,
                "the device was removed by an operator",
                remedy="ask the operator of the server for an enrolment token",
            )
        raise Refused(
            RefusalCode.DEVICE_UNKNOWN,
            "the server does not know the device",
            remedy="register again",
        )

    def tenant_revision(self, entry: DirectoryEntry) -> int:
        """Return the revision of what a device has in common with others of its tenant."""
        tenant = self.common.tenants.get(entry.tenant_id)
        return 0 if tenant is None else tenant.revision

    def note(self, pk: int, **values: Any) -> None:
        """Remember what this process has just written about a device."""
        entry = self._entries.get(pk)
        if entry is not None:
            self._entries[pk] = replace(entry, **values)

    async def refresh_common(self) -> Common:
        """Read what devices have in common now, for what cannot wait for the news of it."""
        self._take_common(await self._worker.run(self._read_common))
        return self.common

    def forget(self, pk: int) -> None:
        """Read a device anew when it is asked for: this process has just changed it."""
        self._entries.pop(pk, None)
        if pk in self._loading:
            self._reset += 1

    # -- waiting --

    async def wait(self, entry: DirectoryEntry, tenant_revision: int, timeout_s: float) -> None:
        """Return when a device has another configuration or other tokens than `entry` with
        `tenant_revision`, at the timeout, or when waiters are released. Refused when the
        device is removed."""
        end_s = asyncio.get_running_loop().time() + timeout_s
        while not self._released:
            current = await self.entry(entry.pk)
            if (current.revision, self.tenant_revision(current)) != (
                entry.revision,
                tenant_revision,
            ):
                return
            left_s = end_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            if self._hears:
                await self._wait_once(current, left_s)
            else:
                # Nobody would wake the waiter: it looks for itself, at this pace.
                await asyncio.sleep(min(left_s, DEAF_WAIT_S))

    async def _wait_once(self, entry: DirectoryEntry, timeout_s: float) -> None:
        """Sleep until a change is heard of that may concern the device."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(entry.pk, set())
        waiting.add(future)
        self._tenant_of_waiting[entry.pk] = entry.tenant_id
        timer = asyncio.get_running_loop().call_later(timeout_s, _finish, future)
        try:
            await future
        finally:
            timer.cancel()
            waiting.discard(future)
            if not waiting and self._waiting.get(entry.pk) is waiting:
                del self._waiting[entry.pk]
                del self._tenant_of_waiting[entry.pk]

    def release_waiters(self) -> None:
        """Wake everybody at once, and hold nobody from now on; for draining."""
        self._released = True
        for waiting in list(self._waiting.values()):
            for future in waiting:
                _finish(future)

    # -- following --

    async def _load(self, pk: int) -> DirectoryEntry | None:
        if not self._hears:
            await self.refresh_common()
        while True:
            self._dirty.pop(pk, None)
            before = self._reset
            self.reads += 1
            entry = await self._worker.run(lambda: self._read(pk))
            changed = self._dirty.pop(pk, 0)
            if before != self._reset or (entry is not None and entry.revision < changed):
                continue
            if entry is not None and entry.tenant_id not in self.common.tenants:
                # A new tenant's first device, faster than the news of the tenant.
                await self.refresh_common()
            if entry is not None and self._hears:
                if len(self._entries) >= MAX_ENTRIES:
                    self._entries.pop(next(iter(self._entries)))
                self._entries[pk] = entry
            return entry

    def _read(self, pk: int) -> DirectoryEntry | None:
        with self._database.read() as transaction:
            return devices.directory_entry(transaction, pk)

    def _take_common(self, common: Common) -> None:
        """Reads cross each other: the newer one counts."""
        if common.revision >= self.common.revision or common.epoch != self.common.epoch:
            self.common = common

    def _read_common(self) -> Common:
        with self._database.read() as transaction:
            return configuration.read_common(transaction)

    def _last_pk(self) -> int:
        with self._database.read() as transaction:
            return devices.last_pk(transaction)

    def _apply(self, changes: Sequence[Change], common: Common | None) -> None:
        if common is not None:
            self._take_common(common)
        for change in changes:
            if change.device_pk is None:
                self._wake_tenant(change.tenant_id)
                continue
            entry = self._entries.get(change.device_pk)
            # An entry may have been read after the change was made, before it was heard of.
            if entry is not None and entry.revision < change.revision:
                del self._entries[change.device_pk]
            if change.device_pk in self._loading:
                self._dirty[change.device_pk] = change.revision
            for future in self._waiting.get(change.device_pk, ()):
                _finish(future)
        if changes:
            self._tell(changes)

    def _replace_all(self, common: Common | None) -> None:
        """Know nothing of devices any more; `common` None: changes are not heard of."""
        self._hears = common is not None
        self._reset += 1
        self._entries.clear()
        if common is not None:
            self._take_common(common)
            for tenant_id in set(self._tenant_of_waiting.values()):
                self._wake_tenant(tenant_id)
            self._tell(None)

    def _tell(self, changes: Sequence[Change] | None) -> None:
        for listener in list(self._listeners):
            listener(changes)

    def _wake_tenant(self, tenant_id: str) -> None:
        loop = asyncio.get_running_loop()
        futures = [
            future
            for pk, waiting in self._waiting.items()
            if self._tenant_of_waiting[pk] == tenant_id
            for future in waiting
        ]
        spread_s = len(futures) / WOKEN_PER_S
        for future in futures:
            if spread_s < 0.1:
                _finish(future)
            else:
                loop.call_later(random.uniform(0, spread_s), _finish, future)

    def _follow(self) -> None:
        """The follower thread: connect, look at everything once, then at each change."""
        while not self._stopping.is_set():
            signal: Signal | None = None
            try:
                signal = self._database.signal()
                revision = self._look_at_everything()
                while not self._stopping.is_set():
                    if signal.wait():
                        revision = self._look_after(revision)
            except (OSError, DBAPIError) as error:
                log.warning("changes are not heard of", extra={"error": str(error)})
                self._in_loop(self._replace_all, None)
                self._stopping.wait(RECONNECT_S)
            finally:
                if signal is not None:
                    signal.close()

    def _look_at_everything(self) -> int:
        common = self._read_common()
        self._in_loop(self._replace_all, common)
        return common.revision

    def _look_after(self, revision: int) -> int:
        while True:
            changes, reached, complete = self._database.changes_after(revision)
            if not complete:
                return self._look_at_everything()
            if not changes:
                return reached
            common = None
            if any(change.device_pk is None for change in changes):
                common = self._read_common()
            self._in_loop(self._apply, changes, common)
            revision = reached

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        # The loop may close while the thread is on its way out.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
