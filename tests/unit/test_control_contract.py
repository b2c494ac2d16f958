"""The rules that protos/auth.proto gives itself, checked on the compiled descriptors."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from wantastic.control import auth_pb2 as pb
from wantastic.control import methods

# The published document, to the letter.
DOCUMENT = {
    ("RegisterDeviceRequest", "device_id", 1, FieldDescriptor.TYPE_STRING),
    ("RegisterDeviceRequest", "public_key", 2, FieldDescriptor.TYPE_STRING),
    ("RegisterDeviceRequest", "tenant_id", 3, FieldDescriptor.TYPE_STRING),
    ("RegisterDeviceResponse", "success", 1, FieldDescriptor.TYPE_BOOL),
    ("RegisterDeviceResponse", "token", 2, FieldDescriptor.TYPE_STRING),
    ("RegisterDeviceResponse", "server_key", 3, FieldDescriptor.TYPE_STRING),
    ("RegisterDeviceResponse", "endpoint", 4, FieldDescriptor.TYPE_STRING),
}


def messages() -> Iterator[Descriptor]:
    yield from pb.DESCRIPTOR.message_types_by_name.values()


def test_the_documents_fields_are_where_the_document_has_them() -> None:
    low = {(m.name, f.name, f.number, f.type) for m in messages() for f in m.fields}
    assert {row for row in low if row[2] < 100} == DOCUMENT


def test_no_package_and_the_documents_paths() -> None:
    assert pb.DESCRIPTOR.package == ""
    service = pb.DESCRIPTOR.services_by_name["AuthService"]
    declared = {
        (m.name, m.input_type.name, m.output_type.name, m.server_streaming) for m in service.methods
    }
    ours = {
        (m.name, m.request.DESCRIPTOR.name, m.reply.DESCRIPTOR.name, m.streams)
        for m in methods.METHODS
    }
    assert declared == ours
    assert methods.PREFIXES == ("/AuthService/", "/grpc.AuthService/")


def test_parts_that_may_be_unchanged_are_messages() -> None:
    lists = [f.name for f in pb.Configuration.DESCRIPTOR.fields if f.is_repeated]
    assert lists == []
    assert not pb.Configuration().HasField("peers")
    empty = pb.Configuration(peers=pb.PeerList())
    assert pb.Configuration.FromString(empty.SerializeToString()).HasField("peers")


def test_no_field_could_carry_a_private_key_or_a_credential_to_a_server() -> None:
    names = {f"{m.name}.{f.name}" for m in messages() for f in m.fields}
    assert not [n for n in names if "private" in n or "secret" in n]
    requests = [n for n in names if "Request." in n and "token" in n]
    assert requests == []


def test_every_error_code_has_a_grpc_status() -> None:
    codes = {value for name, value in pb.ErrorCode.items() if value}
    assert codes == set(methods.GRPC_STATUS)
