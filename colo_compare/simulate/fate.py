"""What befalls a world: its events, as they come due, and when it is left in peace."""

from typing import TYPE_CHECKING, Final

from colo_compare.core.settings import BLOCK
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.simulate import scenario as kinds
from colo_compare.simulate.client import Client
from colo_compare.simulate.links import Link
from colo_compare.simulate.port import LOST, Port
from colo_compare.simulate.scenario import Event
from colo_compare.simulate.seat import Seat, SeatedGuest

if TYPE_CHECKING:
    from colo_compare.simulate.world import World

_STORM: Final = 5.0  # virtual seconds that the network's own faults go on after the last event
_WATCH_EVERY: Final = 0.5  # virtual seconds


class Fate:
    """Lets the events of a scenario happen, and knows what they excuse."""

    def __init__(self, world: "World") -> None:
        self.world: Final = world
        self._aimed: list[Event] = []
        self.last_event = 0.0
        self.pending = 0  # events that have not happened yet
        self.disturbed_until = 0.0  # the secondary might not be able to take over until then
        self.excused = False
        self.peace = False  # nothing befalls the world any more

    def befall(self, event: Event) -> None:
        """Let an event whose time has come happen, or aim it at a checkpoint."""
        if (
            event.aimed
            and self.world.shell.proxy.checkpoint_state == "comparing"
            and not self.world.lost_service
        ):
            self._aimed.append(event)
            self.world.shell.proxy.request_checkpoint("operator", self.world.schedule.now)
            self.world.shell.perform()
            self._strike()
            return
        self._happen(event)

    def _strike(self) -> None:
        aimed, self._aimed = self._aimed, []
        for event in aimed:
            self.world.schedule.after(event.delay, self._happen, event)

    def _happen(self, event: Event) -> None:
        if self.peace:
            return
        self.pending -= 1
        self.last_event = max(self.last_event, self.world.schedule.now + event.length)
        if not self.pending:
            self.world.schedule.at(self.last_event + _STORM, self.calm_down)
        if self.world.lost_service:
            return
        done = self._do(event)
        if event.kind not in kinds.WISHES:
            if done:
                self.world.faults[event.kind] += 1
            self.world.note(f"{event.kind}{'' if done else ': not possible now'}")

    def calm_down(self) -> None:
        """Let the network do no more harm, so that what is not done in time will never be."""
        for side in (CLIENT, PRIMARY, SECONDARY):
            for link in self._links_of(side):
                link.weather = link.weather.calm()

    def _do(self, event: Event) -> bool:
        kind = event.kind
        now = self.world.schedule.now
        until = now + event.length
        if kind == kinds.CALL:
            self.world.client.call(event.text, event.size, event.flag)
        elif kind == kinds.DATAGRAM:
            self.world.client.ask_datagram(event.text, event.size, now)
        elif kind == kinds.PING:
            self.world.client.ping(now)
        elif kind == kinds.HANG_UP:
            self.world.client.hang_up(event.who)
        elif kind == kinds.CRASH_PRIMARY:
            return self._crash_primary()
        elif kind == kinds.CRASH_SECONDARY:
            return self._crash_secondary()
        elif kind == kinds.CRASH_PROXY:
            return self._crash_proxy(event.length)
        elif kind == kinds.HANG_PRIMARY:
            self._hang(self.world.primary, until)
        elif kind == kinds.HANG_SECONDARY:
            return self._hang(self.world.secondary, until)
        elif kind in _CUTS or kind in _SLOWS:
            return self._hurt_links(kind, until)
        elif kind in _STUCK:
            return self._fill(_STUCK[kind], until)
        elif kind in (kinds.BREAK_CHANNEL, kinds.STALL_CHANNEL):
            return self._hurt_channel(kind, event)
        elif kind == kinds.CHECKPOINT:
            if self.world.shell.dead:
                return False
            self.world.shell.proxy.request_checkpoint("operator", now)
            self.world.shell.perform()
        elif kind == kinds.PROMOTE:
            self.excused = True
            self.world.shell.failover.promote()
        elif kind == kinds.PROTECT:
            return self._protect_again()
        else:
            self._upset(event, until)
        self.world.client_polls()
        return True

    def _disturb(self, until: float) -> None:
        """Note that the secondary might not be able to take over for a while."""
        self.disturbed_until = max(self.disturbed_until, until + 3.0)

    def _crash_primary(self) -> bool:
        world = self.world
        shell = world.shell
        heir = world.secondary
        if heir is None or not heir.alive or not shell.proxy.protected or shell.dead:
            return False  # one death too many
        if not world.primary.alive or shell.failover.promoting:
            return False
        calm = world.schedule.now >= self.disturbed_until and heir.runs
        self.excused = not calm
        world.primary.kill()
        port = world.ports[world.primary.name]
        world.schedule.after(self._detection(), shell.failover.report, port, "its process has ended")
        return True

    def _crash_secondary(self) -> bool:
        seat = self.world.secondary
        if seat is None or not seat.alive or not self.world.primary.alive:
            return False
        self.excused = True
        seat.kill()
        port = self.world.ports[seat.name]
        self.world.schedule.after(self._detection(), self.world.receiver.lose_guest)
        self.world.schedule.after(self._detection(), self._reports, port)
        return True

    def _reports(self, port: Port) -> None:
        if port.role != LOST:
            self.world.shell.failover.report(port, "its process has ended")

    def _detection(self) -> float:
        return self.world.chance.random() * self.world.scenario.detection

    def _crash_proxy(self, downtime: float) -> bool:
        world = self.world
        seat = world.secondary
        if seat is None or not seat.alive or not world.primary.alive or world.shifted or world.shell.dead:
            return False
        if world.shell.failover.promoting or world.shell.secondary is None:
            return False
        world.shell.crash()
        world.oracle.forget()
        self._disturb(world.schedule.now + downtime + 10)
        seat.lenient = True
        world.schedule.after(downtime, self._restart_proxy)
        return True

    def _restart_proxy(self) -> None:
        """Start again beside guests that run on; what it held is lost."""
        world = self.world
        for port in world.ports.values():
            port.stuck_until = 0.0
            port.failure = ""
        world.shell = world.new_shell()
        world.backend = world.new_backend()
        if not world.primary.alive or world.secondary is None or not world.secondary.alive:
            self.excused = True
        world.shell.start()
        for seat in (world.primary, world.secondary):
            if seat is not None and not seat.alive:
                self._reports(world.ports[seat.name])
        world.note("the proxy starts again")

    def _hang(self, seat: Seat | None, until: float) -> bool:
        if seat is None or not seat.alive:
            return False
        self.excused = True
        seat.hang(until)
        self._disturb(until)
        return True

    def _links_of(self, side: int) -> tuple[Link, ...]:
        if side == CLIENT:
            return self.world.links[CLIENT]
        seat = self.world.primary if side == PRIMARY else self.world.secondary
        return () if seat is None else (seat.out, seat.inward)

    def _hurt_links(self, kind: str, until: float) -> bool:
        links = self._links_of(_CUTS[kind] if kind in _CUTS else _SLOWS[kind])
        for link in links:
            if kind in _CUTS:
                link.cut(until)
            else:
                link.slow_down(until, 20_000.0)
        return bool(links)

    def _fill(self, side: int, until: float) -> bool:
        shell = self.world.shell
        port = {CLIENT: shell.client, PRIMARY: shell.primary, SECONDARY: shell.secondary}[side]
        if port is None or shell.dead:
            return False
        if side == SECONDARY:
            self._disturb(until)
            self.excused = True
        port.stuck_until = max(port.stuck_until, until)
        return True

    def _hurt_channel(self, kind: str, event: Event) -> bool:
        session = self.world.backend.session
        if session is None or not session.channels or self.world.backend.over:
            return False
        channel = session.channels[event.who % len(session.channels)]
        self.excused = True
        self._disturb(self.world.schedule.now + event.length)
        if kind == kinds.BREAK_CHANNEL:
            channel.end("it broke")
            if event.size == 20:
                self.world.backend.cut_off(self.world.schedule.now + 0.3)
        else:
            for channel in session.channels:
                channel.stall(self.world.schedule.now + event.length)
        return True

    def _protect_again(self) -> bool:
        """Take a new guest, of no state yet, as the secondary."""
        shell = self.world.shell
        if (
            shell.secondary is not None
            or shell.dead
            or not self.world.primary.alive
            or shell.failover.promoting
        ):
            return False
        if self.world.secondary is not None and self.world.secondary.alive:
            return False  # it is still being fenced
        world = self.world
        world.secondary = world.new_seat(SECONDARY, world.scenario.secondary_link)
        world.secondary.lenient = True
        world.receiver = world.new_receiver(world.secondary)
        world.backend = world.new_backend()
        shell.protect(world.ports[world.secondary.name], world.backend)
        return True

    def watch_over(self) -> None:
        """Bring a new secondary, as an operator would, whenever the service stands still for want of one."""
        if self.world.shell.proxy.mode == BLOCK and not self.world.lost_service and self._protect_again():
            self.world.note("a new secondary comes, as nothing goes without one")
        self.world.schedule.after(_WATCH_EVERY, self.watch_over)

    def _upset(self, event: Event, until: float) -> None:
        machines: list[Client | SeatedGuest] = [self.world.client, self.world.primary.guest]
        if self.world.secondary is not None:
            machines.append(self.world.secondary.guest)
        machine = machines[event.who % len(machines)]
        if event.kind == kinds.SEGMENT_SIZE:
            machine.mss = event.size
        else:
            machine.reading = False
            self.world.schedule.at(until, self.read_again)

    def read_again(self) -> None:
        """Let all applications read: a checkpoint carries to the other guest that one does not."""
        self.world.client.reading = True
        self.world.client.act()
        self.world.client_polls()
        for seat in (self.world.primary, self.world.secondary):
            if seat is not None and seat.alive:
                seat.guest.reading = True
                if seat.runs:
                    seat.guest.serve()
                    seat.wake()


_CUTS: Final = {
    kinds.PARTITION_CLIENT: CLIENT,
    kinds.PARTITION_PRIMARY: PRIMARY,
    kinds.PARTITION_SECONDARY: SECONDARY,
}
_SLOWS: Final = {kinds.SLOW_CLIENT: CLIENT, kinds.SLOW_SECONDARY: SECONDARY}
_STUCK: Final = {
    kinds.STUCK_CLIENT: CLIENT,
    kinds.STUCK_PRIMARY: PRIMARY,
    kinds.STUCK_SECONDARY: SECONDARY,
}
