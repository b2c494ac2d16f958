"""IP packets built and cut in the plainest way: the model that native code is held against."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace

TCP = 6
UDP = 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << i for i in range(8))

NEEDS_CHECKSUM = 1
GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 1, 4, 5, 0x80

Header = tuple[int, int, int, int, int, int]
FINISHED: Header = (0, 0, 0, 0, 0, 0)


def checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Segment:
    """One TCP or UDP packet; `bytes()` gives it with all checksums right."""

    source: str = "10.0.0.1"
    destination: str = "10.0.0.2"
    protocol: int = TCP
    source_port: int = 40000
    destination_port: int = 5201
    payload: bytes = b""
    sequence: int = 1000
    acknowledgement: int = 7
    flags: int = ACK
    window: int = 500
    urgent: int = 0
    options: bytes = b""
    ip_options: bytes = b""
    extensions: bytes = b""  # IPv6, in front of the transport header
    first_extension: int = 0
    identification: int = 1
    dont_fragment: bool = True
    ttl: int = 64
    tos: int = 0
    flow_label: int = 0

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.source).version

    @property
    def addresses(self) -> bytes:
        return (
            ipaddress.ip_address(self.source).packed + ipaddress.ip_address(self.destination).packed
        )

    @property
    def l4_offset(self) -> int:
        return 20 + len(self.ip_options) if self.version == 4 else 40 + len(self.extensions)

    @property
    def header_len(self) -> int:
        return self.l4_offset + (20 + len(self.options) if self.protocol == TCP else 8)

    def pseudo(self, length: int) -> bytes:
        if self.version == 4:
            return self.addresses + struct.pack("!BBH", 0, self.protocol, length)
        return self.addresses + struct.pack("!IHBB", length, 0, 0, self.protocol)

    def transport(self, check: int) -> bytes:
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == UDP:
            return ports + struct.pack("!HH", 8 + len(self.payload), check) + self.payload
        return (
            ports
            + struct.pack(
                "!IIBBHHH",
                self.sequence % 2**32,
                self.acknowledgement,
                (20 + len(self.options)) // 4 << 4,
                self.flags,
                self.window,
                check,
                self.urgent,
            )
            + self.options
            + self.payload
        )

    def ip(self, length: int) -> bytes:
        if self.version == 6:
            first = self.first_extension if self.extensions else self.protocol
            word = 6 << 28 | self.tos << 20 | self.flow_label
            length += len(self.extensions)
            return (
                struct.pack("!IHBB", word, length, first, self.ttl)
                + self.addresses
                + (self.extensions)
            )
        size = 20 + len(self.ip_options)
        header = struct.pack(
            "!BBHHHBBH",
            0x40 | size // 4,
            self.tos,
            size + length,
            self.identification % 65536,
            0x4000 if self.dont_fragment else 0,
            self.ttl,
            self.protocol,
            0,
        )
        header += self.addresses + self.ip_options
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:]

    def __bytes__(self) -> bytes:
        plain = self.transport(0)
        check = checksum(self.pseudo(len(plain)) + plain)
        if self.protocol == UDP and check == 0:
            check = 0xFFFF
        return self.ip(len(plain)) + self.transport(check)

    def unfinished(self, segment_len: int = 0) -> tuple[bytes, Header]:
        """As a TUN device hands it out: pseudo header sum only, and the vnet header."""
        plain = self.transport(0)
        partial = ~checksum(self.pseudo(len(plain))) & 0xFFFF
        kind = 0
        if segment_len:
            tcp = GSO_TCPV4 if self.version == 4 else GSO_TCPV6
            kind = tcp if self.protocol == TCP else GSO_UDP_L4
            if self.protocol == TCP and self.flags & CWR:
                kind |= GSO_ECN
        field = 16 if self.protocol == TCP else 6
        header = (
            NEEDS_CHECKSUM,
            kind,
            self.header_len if segment_len else 0,
            segment_len,
            self.l4_offset,
            field,
        )
        return self.ip(len(plain)) + self.transport(partial), header

    def cut(self, segment_len: int) -> list[Segment]:
        """What a network card with segmentation offload would send."""
        pieces = [
            self.payload[i : i + segment_len] for i in range(0, len(self.payload), segment_len)
        ]
        out = []
        for i, piece in enumerate(pieces):
            flags = self.flags
            if i + 1 < len(pieces):
                flags &= ~(FIN | PSH)
            if i > 0:
                flags &= ~CWR
            out.append(
                replace(
                    self,
                    payload=piece,
                    flags=flags,
                    sequence=self.sequence + i * segment_len,
                    identification=self.identification + i,
                )
            )
        return out
