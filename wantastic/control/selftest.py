"""What enrolment needs of an executable: its libraries are all there and work.

protobuf's upb, pycryptodome and the gRPC libraries import by name what a compiler of Python cannot
see; a part that is missing shows at the first enrolment only, or here.
"""

from __future__ import annotations

from wantastic.control import auth_pb2 as pb
from wantastic.control.certificate import generate_key, make_request
from wantastic.control.transport import load

NAME = "selftest"


def run() -> str:
    """Make a request, a message and a transport; return what was proved, or raise."""
    csr = make_request(generate_key(), NAME)
    sent = pb.RegisterDeviceRequest(device_id=NAME, certificate_request=csr)
    got = pb.RegisterDeviceRequest.FromString(sent.SerializeToString())
    if got != sent or got.certificate_request != csr:
        raise ValueError("a protobuf message came back changed")
    load("auto")
    return "protobuf, PKCS#10, gRPC"
