"""What the device says to people: conditions, reasons and remedies of what can fail."""

from __future__ import annotations

import errno

from wantastic.config import diff as d
from wantastic.telemetry.log import short_key


def explain_tun(error: OSError, name: str) -> tuple[str, str]:
    """Return reason and remedy of a TUN device that cannot be opened."""
    why = f"the TUN device {name} cannot be opened: {error.strerror or error}"
    remedies = {
        errno.ENOENT: "Load the tun module, or make /dev/net/tun (mknod c 10 200).",
        errno.ENODEV: "This kernel has no TUN support: install kmod-tun.",
        errno.ENXIO: "This kernel has no TUN support: install kmod-tun.",
        errno.EPERM: "Run as root or with CAP_NET_ADMIN.",
        errno.EACCES: "Run as root or with CAP_NET_ADMIN.",
        errno.EBUSY: "Another program has this interface: end it, or set interface.name.",
        errno.EINVAL: "An interface of that name exists: set interface.name.",
    }
    return why, remedies.get(error.errno or 0, "Check /dev/net/tun and interface.name.")


def subject_of(change: d.Change) -> str:
    """Return what a change is about, in one word."""
    match change:
        case d.AddAddress() | d.RemoveAddress():
            return str(change.address)
        case d.AddRoute() | d.RemoveRoute():
            return str(change.network)
        case d.SetPeer() | d.RemovePeer():
            return short_key(change.public_key)
    return ""


def remedy_for(change: d.Change, error: Exception) -> str:
    """Return what a user can do about a change that failed."""
    code = error.errno if isinstance(error, OSError) else 0
    if isinstance(error, MemoryError):
        return "Raise memory_limit, or configure fewer peers and ranges."
    if isinstance(change, d.AddRoute) and code == errno.EEXIST:
        return "The host has another route for this range: remove that, or the range."
    if isinstance(change, d.AddAddress) and code in (errno.EACCES, errno.EOPNOTSUPP):
        return "IPv6 is switched off on this host: enable it, or remove the address."
    if isinstance(change, d.SetBindInterface) and code == errno.ENODEV:
        return "It is bound as soon as that interface appears; until then any is used."
    if code in (errno.EPERM, errno.EACCES):
        return "Run as root or with CAP_NET_ADMIN."
    return "Correct the configuration and send SIGHUP; it is tried again then."


CHANGE_NAMES: dict[type, str] = {
    d.SetPrivateKey: "setting the private key",
    d.SetListenPort: "setting the listen port",
    d.SetFwmark: "setting the firewall mark",
    d.SetBindInterface: "binding to the interface",
    d.SetMtu: "setting the MTU",
    d.AddAddress: "adding the address",
    d.RemoveAddress: "removing the address",
    d.AddRoute: "adding the route",
    d.RemoveRoute: "removing the route",
    d.SetDefaultRoute: "setting the default route",
    d.RemovePeer: "removing the peer",
    d.SetPeer: "setting the peer",
}
CONDITION_OF: dict[type, str] = {
    d.SetPrivateKey: "private_key_failed",
    d.SetListenPort: "listen_port_failed",
    d.SetFwmark: "fwmark_failed",
    d.SetBindInterface: "bind_interface_failed",
    d.SetMtu: "mtu_failed",
    d.AddAddress: "address_failed",
    d.RemoveAddress: "address_failed",
    d.AddRoute: "route_failed",
    d.RemoveRoute: "route_failed",
    d.SetDefaultRoute: "default_route_failed",
    d.RemovePeer: "peer_failed",
    d.SetPeer: "peer_failed",
}
