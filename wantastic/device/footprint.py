"""What a tunnel leaves on the host while it runs: addresses, routes, default routes, rules.

Everything that is added here is remembered here, and close() takes it all away again.
What is so already (an address made the same route, a run before left a rule) is taken
over without an error. Without an interface (no TUN) nothing is done, and all is kept in
mind as if it were.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from wantastic.config.model import IpInterface, IpNetwork
from wantastic.device.default_route import DEFAULTS, DefaultRoute
from wantastic.device.host import Host
from wantastic.device.netlink import RT_TABLE_MAIN
from wantastic.telemetry.log import Log

# What a kernel says that has no IPv6, or in which it is switched off.
NO_IPV6 = {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES}


@contextlib.contextmanager
def ignore(*codes: int) -> Iterator[None]:
    """Let an OSError of these errnos pass: the host is as wanted already."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


class Footprint:
    """The traces of one interface; each method raises OSError where the host refuses."""

    def __init__(self, host: Host, log: Log) -> None:
        self.ifindex = 0
        self.addresses: set[IpInterface] = set()
        self.routes: set[IpNetwork] = set()
        # The IP versions whose default route was asked for.
        self.default_versions: frozenset[int] = frozenset()
        self._default: DefaultRoute | None = None
        self._host = host
        self._log = log

    def add_address(self, address: IpInterface) -> None:
        if self.ifindex:
            with ignore(errno.EEXIST):
                self._host.add_address(self.ifindex, address)
        self.addresses.add(address)

    def remove_address(self, address: IpInterface) -> None:
        if self.ifindex:
            with ignore(errno.EADDRNOTAVAIL, errno.ENODEV):
                self._host.remove_address(self.ifindex, address)
        self.addresses.discard(address)
        if self.ifindex and address.version == 4:
            self._mend()

    def _mend(self) -> None:
        """Put back what Linux takes along with an IPv4 address: the later ones of its subnet,
        and with the last one all IPv4 routes of the interface, in every table."""
        for address in self.addresses:
            if address.version == 4:
                with ignore(errno.EEXIST):
                    self._host.add_address(self.ifindex, address)
        for network in self.routes:
            if network.version == 4:
                with ignore(errno.EEXIST):
                    self._host.add_route(self.ifindex, network)
        if self._default and 4 in self._default.versions:
            with ignore(errno.EEXIST):
                self._host.add_route(self.ifindex, DEFAULTS[4], self._default.mark)

    def add_route(self, network: IpNetwork) -> None:
        if self.ifindex:
            try:
                self._host.add_route(self.ifindex, network)
            except OSError as error:
                if error.errno != errno.EEXIST or not self._leads_here(network):
                    raise
        self.routes.add(network)

    def _leads_here(self, network: IpNetwork) -> bool:
        """Return whether the host has this route into the tunnel already: an address made it."""
        where = (str(network.network_address), network.prefixlen)
        return any(
            (route.destination, route.prefix_length) == where and route.ifindex == self.ifindex
            for route in self._host.routes(network.version)
            if route.table == RT_TABLE_MAIN
        )

    def remove_route(self, network: IpNetwork) -> None:
        if self.ifindex:
            with ignore(errno.ESRCH, errno.ENODEV):
                self._host.remove_route(self.ifindex, network)
        self.routes.discard(network)

    @property
    def has_default(self) -> bool:
        """Whether a default route leads into the tunnel."""
        return self._default is not None

    def take_default(self, versions: frozenset[int], mark: int) -> None:
        """Lead the host's traffic of these IP versions into the tunnel; all of it or none."""
        default = DefaultRoute(self._host, self.ifindex, mark)
        try:
            for version in sorted(versions):
                self._add_default(default, version)
        except OSError:
            default.remove()
            raise
        self._default, self.default_versions = default, versions

    def _add_default(self, default: DefaultRoute, version: int) -> None:
        try:
            default.add(version)
        except OSError as error:
            # A host without IPv6 has no IPv6 traffic to lead into the tunnel. Any other
            # failure would let it leave outside.
            if version == 4 or error.errno not in NO_IPV6:
                raise
            self._log.warning("no IPv6 default route", reason=error.strerror)

    def drop_default(self) -> None:
        """Give the default routes back."""
        if self._default:
            self._default.remove()
        self._default, self.default_versions = None, frozenset()

    def is_routed(self, network: IpNetwork) -> bool:
        """Return whether the host leads a range into the tunnel."""
        if network in self.routes:
            return True
        return self._default is not None and any(
            network == DEFAULTS[version] for version in self._default.versions
        )

    def close(self) -> None:
        """Take everything away; what cannot be is gone with the interface."""
        self.drop_default()
        for network in self.routes:
            with contextlib.suppress(OSError):
                self._host.remove_route(self.ifindex, network)
        for address in self.addresses:
            with contextlib.suppress(OSError):
                self._host.remove_address(self.ifindex, address)
        self.routes, self.addresses = set(), set()
