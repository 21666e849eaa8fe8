"""`colo-compare run`: one configuration, three ports, one checkpointer, signals, control socket, HTTP."""

import gc
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import trio

from colo_compare.build import PLAIN_NOTICE, is_compiled
from colo_compare.checkpoint.contract import Checkpointer
from colo_compare.config import Config, change, load_config, runtime_changes
from colo_compare.control import serve_control
from colo_compare.core.settings import BYPASS, OBSERVE, PROTECT
from colo_compare.errors import ColoCompareError, ConfigError, ControlRefused
from colo_compare.http import serve_http
from colo_compare.logs import Log
from colo_compare.loop import Loop
from colo_compare.operate.captures import Captures, CaptureSettings
from colo_compare.operate.methods import ControlMethods
from colo_compare.operate.service_manager import ServiceManager
from colo_compare.page import LivePage
from colo_compare.ports import open_port
from colo_compare.process import prepare_process
from colo_compare.web import Pages

logger: Final = logging.getLogger(__name__)


def run(path: Path, environ: Mapping[str, str]) -> None:
    """Run the daemon until it is told to stop. Raises ColoCompareError when it cannot go on."""
    config = load_config(path, environ)
    log = Log(sys.stderr)
    log.configure(config.log.level, config.log.format)
    with log.opened():
        prepare_process(config.process)
        trio.run(Daemon(path, environ, config, log).run)


class Daemon:
    """What belongs to the process, round a Loop."""

    def __init__(self, path: Path, environ: Mapping[str, str], config: Config, log: Log) -> None:
        self._path = path
        self._environ = environ
        self._config = config
        self._log = log
        self._checkpointer: Checkpointer = config.make_checkpointer()
        self._loop: Loop | None = None
        self._manager = ServiceManager(environ)
        self.captures: Captures | None = None  # where a directory is configured for them

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until a signal, or an error that the mode cannot absorb. Started when it serves."""
        failure: ColoCompareError | None = None
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                try:
                    await self._serve(nursery, task_status)
                except ColoCompareError as error:
                    failure = error  # raised below: a nursery would wrap it in a group
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _serve(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        config = self._config
        urls = config.ports
        # First, as opening the ports may take a while: /readyz says so.
        self._manager.tell("STATUS=opening the ports")
        await self._open_http(nursery)
        async with AsyncExitStack() as stack:
            client, primary, secondary = [
                await stack.enter_async_context(open_port(url))
                for url in (urls.client, urls.primary, urls.secondary)
            ]
            await self._open_control(nursery)
            settings = config.settings(self._checkpointer.capabilities)
            settings = replace(settings, flow_seed=secrets.randbits(88))
            self._loop = Loop(settings, client, primary, secondary, self._checkpointer)
            nursery.start_soon(self._loop.measures.watch_loop)
            self._start_captures(nursery, self._loop)
            # Everything that exists by now lives as long as the process: modules, configuration, ports. Taken
            # out of the collector's sight, it is not walked through again at each full collection, which
            # then only looks at what traffic has made.
            gc.collect()
            gc.freeze()
            logger.info(
                "started: mode %s, client %s, primary %s, secondary %s, checkpointer %s",
                settings.mode, urls.client, urls.primary, urls.secondary, config.checkpointer.backend,
            )  # fmt: skip
            if not is_compiled():
                logger.info(PLAIN_NOTICE)
            nursery.start_soon(self._manager.watch, self._loop)
            await self._loop.run(task_status)

    async def _open_control(self, nursery: trio.Nursery) -> None:
        control = self._config.control
        if control.socket != "off":
            methods = ControlMethods(self).table()
            await nursery.start(serve_control, Path(control.socket), control.file_mode, methods)

    async def _open_http(self, nursery: trio.Nursery) -> None:
        http = self._config.http
        if http.listen == "off":
            return
        backend = self._config.checkpointer.backend
        routes = dict(Pages(lambda: self._loop, backend).routes())
        if http.page:
            page = LivePage(lambda: self._loop, backend, payload=http.payload)
            routes |= page.routes()
            nursery.start_soon(page.watch)
        await nursery.start(serve_http, http.listen, routes)

    def _start_captures(self, nursery: trio.Nursery, loop: Loop) -> None:
        capture = self._config.capture
        if capture.directory != "off":
            self.captures = Captures(
                CaptureSettings(
                    Path(capture.directory),
                    capture.ring,
                    capture.after,
                    capture.interval,
                    capture.max_files,
                    capture.max_bytes,
                )
            )
            nursery.start_soon(self.captures.run, loop.frames)

    # Signals

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            logger.info("got %s", signal.Signals(number).name)
            if number == signal.SIGHUP:
                self._manager.reloading()
                self.reload()
                self._manager.reloaded()
            elif self._loop is None:  # still opening its ports
                everything.cancel()
            else:
                self._loop.stop()

    def reload(self) -> None:
        """Read the configuration again, and take what can be taken while running.

        A file with a mistake changes nothing. What needs a restart is named in the log, each time until the
        restart.
        """
        try:
            new = load_config(self._path, self._environ)
        except ConfigError:
            logger.exception("the configuration was not taken, the old one stays")
            return
        old = self._config
        for path in runtime_changes(old, new):
            logger.warning("%s has changed: this takes effect at the next restart", path)
        fixed = {name: getattr(old.proxy, name) for name in ("mode", "mirror", "rewrite")}
        self._config = msgspec.structs.replace(
            old, proxy=msgspec.structs.replace(new.proxy, **fixed), log=new.log
        )
        self._log.configure(new.log.level, new.log.format)
        if self._loop is not None:
            self._loop.apply(self._config.settings(self._checkpointer.capabilities))
        logger.info("the configuration was read again")

    # Control

    def change(self, key: str, value: str) -> None:
        """Set one key of the configuration, until the file is read again. Raises ConfigError."""
        self._config = change(self._config, key, value)
        self._log.configure(self._config.log.level, self._config.log.format)
        self.loop.apply(self._config.settings(self._checkpointer.capabilities))
        logger.warning("%s is %s now, by an operator's decision", key, value)

    async def set_mode(self, mode: str) -> None:
        """Change the mode. Raises ConfigError, or ControlRefused."""
        if mode not in (PROTECT, OBSERVE, BYPASS):
            raise ConfigError("mode", f'"{mode}" is not one of protect, observe, bypass')
        self._checkpointer.check_mode(mode)
        await self.loop.set_mode(mode)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def loop(self) -> Loop:
        """The loop. Raises ControlRefused as long as there is none."""
        if self._loop is None:
            raise ControlRefused("the daemon is still opening its ports: ask again in a moment")
        return self._loop
