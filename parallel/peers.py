"""Processes that live and die together: each learns when another is gone, hung or different, and which.

Process 0 is the hub: every other process, a member, keeps one TCP connection to it and tells it every
second how far it is. The hub judges, and tells all its verdict, with which each process ends. When the hub is
gone or silent, each member says so itself. What travels is lines of JSON.

JAX's own service also ends all processes when one is gone, but after 100 s, by an abort in C++ that says
"another task died".
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from configs.errors import UserError
from parallel.progress import Progress

BEAT = 1.0  # seconds between signs of life
SILENCE = 30.0  # without any for so long, a process is taken for dead
STUCK = 45.0  # seconds, or ten steps, by which a process may be late when others wait for it
GRACE = 5.0  # seconds to learn whether an error of this process's is the end of another
START = 300.0  # seconds in which all must have come


_joined: Peers | None = None  # of this process, once it has joined


class Link:
    """One end of a connection: whole messages in, whole messages out."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(START)
        self.socket, self._buffer, self._lock = connection, b'', threading.Lock()
        self.index, self.host = 0, ''  # of the process at the other end
        self.heard = time.monotonic()
        self.begun, self.finished, self.busy = 0, 0, False
        self.done = False
        self.facts: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """Returns for instance 'process 2 (node-3)'."""
        return f'process {self.index} ({self.host})'

    def send(self, **message: Any) -> None:
        """Sends a message; to an end that is gone, nothing."""
        with self._lock, contextlib.suppress(OSError):  # the loop that reads from it will notice
            self.socket.sendall(json.dumps(message).encode() + b'\n')

    def receive(self) -> list[dict] | None:
        """Returns the messages that have come, which may be none yet; None when the other end is closed."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b'\n')
        return [json.loads(line) for line in lines]

    def first(self) -> dict:
        """Waits for the first message and returns it; {} if there is none."""
        while (messages := self.receive()) is not None:
            if messages:
                return messages[0]
        return {}


class Peers:
    """This process's connections with the others, made by `join`; without any, nothing is watched."""

    def __init__(self, index: int, links: list[Link], progress: Progress):
        self.index, self.progress = index, progress
        self._links = {link.index: link for link in links}
        self._changed = threading.Condition()
        self._agreed: list[str | None] = []
        self._late_since: float | None = None
        self._refused = False
        if links:
            _hold_aborts()
            threading.Thread(target=self._watch, daemon=True, name='peers').start()

    @classmethod
    def join(cls, index: int, count: int, coordinator: str, store: Any, progress: Progress) -> Peers:
        """Connects all processes. `coordinator` is HOST:PORT of process 0, `store` JAX's key-value store."""
        global _joined
        if index:
            port, token = json.loads(store.blocking_key_value_get('lathe/peers', int(START * 1000)))
            link = Link(socket.create_connection((coordinator.rpartition(':')[0].strip('[]'), port), START))
            link.send(token=token, index=index, host=socket.gethostname())
            link.host = link.first()['host']
            _joined = cls(index, [link], progress)
            return _joined
        token, links = os.urandom(16).hex(), []
        with socket.create_server(
            ('', 0), family=_family(), dualstack_ipv6=_family() != socket.AF_INET
        ) as server:
            store.key_value_set('lathe/peers', json.dumps([server.getsockname()[1], token]))
            server.settimeout(START)
            while len(links) < count - 1:
                link = Link(server.accept()[0])
                hello = link.first()
                if hello.get('token') == token:  # anyone may knock at an open port
                    link.index, link.host = hello['index'], hello['host']
                    link.send(host=socket.gethostname())
                    links.append(link)
        _joined = cls(index, links, progress)
        return _joined

    @property
    def name(self) -> str:
        """Returns for instance 'process 2 (node-3)'."""
        return f'process {self.index} ({socket.gethostname()})'

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Returns when all processes have called it with the same facts; UserError in all if they differ."""
        if not self._links:
            return
        mine = {key: str(value) for key, value in facts.items()}
        with self._changed:
            if self.index:
                self._links[0].send(facts=mine)
            else:
                links = list(self._links.values())
                self._changed.wait_for(lambda: all(link.facts is not None for link in links))
                different = self._difference(mine)
                self._agreed.append(different)
                for link in links:
                    link.facts = None
                    link.send(agreed=different)
            self._changed.wait_for(lambda: self._agreed)
            different = self._agreed.pop()
        if different:
            for link in self._links.values():
                link.done = True  # all know why all end
            self._refused = True
            raise UserError(different)

    def _difference(self, mine: dict[str, str]) -> str | None:
        for link in self._links.values():
            theirs = link.facts or {}
            keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
            if keys:
                listed = '; '.join(
                    f'{key}: {theirs.get(key)} there, {mine.get(key)} here' for key in keys[:3]
                )
                more = f'; and {len(keys) - 3} more' if len(keys) > 3 else ''
                return (
                    f'{link.name} is not like {self.name}: {listed}{more}. All processes of a run need the '
                    'same config, data, code and packages.'
                )
        return None

    def leave(self) -> None:
        """Says that this process ends as it should, so that the others think nothing of its silence."""
        for link in self._links.values():
            link.send(done=True)
            link.done = True

    def fail(self, error: BaseException) -> NoReturn:
        """Ends this process with its own error, of which the others are told; or by what is known of them."""
        if isinstance(error, UserError):
            status, told = 2, str(error)
            print(f'error: {error}', file=sys.stderr, flush=True)
            if self._refused:
                time.sleep(BEAT)  # so that all have read why, before this process is gone
                os._exit(status)
        else:
            status, told = (130 if isinstance(error, KeyboardInterrupt) else 1), repr(error)
            if status == 1:
                time.sleep(GRACE)  # the thread that watches may know better, and ends the process
            traceback.print_exception(error)
        self._end(f'{self.name} ended by an error of its own: {told}', status, say=False)

    # ---- The thread that watches -----------------------------------------------------------------------

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for link in self._links.values():
            selector.register(link.socket, selectors.EVENT_READ, link)
        beaten = 0.0
        while True:
            for key, _ in selector.select(BEAT / 4):
                messages = key.data.receive()
                if messages is None:
                    selector.unregister(key.fileobj)
                    self._gone(key.data)
                for message in messages or ():
                    self._take(key.data, message)
            if time.monotonic() > beaten + BEAT:
                beaten = time.monotonic()
                at = (self.progress.begun, self.progress.finished, self.progress.busy)
                for link in self._links.values():
                    link.send(beat=at)
            self._judge()

    def _take(self, link: Link, message: dict) -> None:
        if 'beat' in message:
            link.begun, link.finished, link.busy = message['beat']
        if message.get('done'):
            link.done = True
        if 'verdict' in message:
            self._end(message['verdict'], 1)
        if 'facts' in message or 'agreed' in message:
            with self._changed:
                if 'facts' in message:
                    link.facts = message['facts']
                else:
                    link.done = bool(message['agreed'])
                    self._agreed.append(message['agreed'])
                self._changed.notify_all()

    def _gone(self, link: Link) -> None:
        if not link.done:
            self._end(f'{link.name} is gone: it was killed, or it crashed', 1, of=link)

    def _judge(self) -> None:
        now = time.monotonic()
        for link in self._links.values():
            if not link.done and now > link.heard + SILENCE:
                self._end(
                    f'{link.name} gave no sign of life for {SILENCE:.0f} s: it is stopped, or its machine or '
                    'the network to it is down',
                    1,
                    of=link,
                )
        if self.index == 0:
            self._judge_lateness(now)

    def _judge_lateness(self, now: float) -> None:
        """Ends all when some have long not begun the step in which others wait for them."""
        everyone = [(self.progress.begun, self.progress.finished, self.progress.busy, self.name)]
        everyone += [(link.begun, link.finished, link.busy, link.name) for link in self._links.values()]
        least, most = min(at[0] for at in everyone), max(at[0] for at in everyone)
        # Before all have finished a step, some may have to compile what others find in a cache.
        median = self.progress.median()
        if (
            least == most
            or median is None
            or not all(at[1] for at in everyone)
            or any(at[2] for at in everyone)
        ):
            self._late_since = None
            return
        self._late_since = self._late_since or now
        if now > self._late_since + max(STUCK, 10 * median):
            late = [at for at in everyone if at[0] == least]
            names = ', '.join(at[3] for at in late[:4]) + (' …' if len(late) > 4 else '')
            seconds = now - self._late_since
            self._end(
                f'{names} did not begin step {least + 1}, for which the others waited {seconds:.0f} s; '
                f'the last step finished there: step {late[0][1]}',
                1,
            )

    def _end(self, verdict: str, status: int, *, of: Link | None = None, say: bool = True) -> NoReturn:
        """Tells the others and ends this process, whatever its main thread is doing."""
        if of is not None:
            step = f'step {of.finished}' if of.finished else 'none'
            verdict += f'; the last step finished there: {step}'
        if say:
            finished = self.progress.finished
            when = f'after step {finished}' if finished else 'before its first step'
            then = 'continues from the newest checkpoint' if finished else 'tries again'
            self.progress.say(
                f'error: {verdict}. {self.name.capitalize()} ends too, {when}; '
                f'the same command, with as many processes as there are, {then}.'
            )
        sys.stdout.flush()
        for link in self._links.values():
            link.send(verdict=verdict)
            try:
                link.socket.shutdown(socket.SHUT_WR)
            except OSError:
                continue
        # A connection closed with messages unread loses what was sent last; and members should be told by
        # the hub before they see it gone.
        until = time.monotonic() + 2 * BEAT
        for link in self._links.values():
            link.socket.settimeout(max(until - time.monotonic(), 0.01))
            while link is not of and time.monotonic() < until and link.receive() is not None:
                pass
        os._exit(status)


def ending_together(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Returns `main` such that its end, by whatever error, is known to the other processes at once.

    An error that follows from the end of another process, such as a collective operation that lost its
    connection, gives way to the verdict on that process.
    """

    def guarded(*arguments: Any) -> int | None:
        try:
            status = main(*arguments)
        except BaseException as error:
            if _joined is not None:
                _joined.fail(error)
            raise
        if _joined is not None:
            _joined.leave()
        return status

    return guarded


def _hold_aborts() -> None:
    """Delays an abort by some seconds.

    JAX aborts a process as soon as process 0 is gone. sleep(), as the handler of that signal, is called with
    the signal's number, 6, and so leaves the thread that watches 6 seconds to say what happened.
    """
    library = ctypes.CDLL(None)
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def _family() -> socket.AddressFamily:
    return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
