"""A gRPC client with nothing but grpcio, the project's compiled proto and server reflection: ``plain_grpc.py PORT KEY``."""

import json
import sys

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from wenfang.doors.gateway.rpc.messages import SERVICE, Messages


class WithKey(grpc.StreamStreamClientInterceptor):
    """The reflection client has no place for metadata."""

    def __init__(self, key):
        self.key = key

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=(("x-api-key", self.key),)), requests)


def main(port, key):
    m = Messages()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        reflected = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithKey(key)))
        services = sorted(reflected.get_services())
        assert descriptor_pool.DescriptorPool(reflected).FindServiceByName(SERVICE).methods_by_name.keys() == m.service.methods_by_name.keys()
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=m.ModelInferRequest.SerializeToString, response_deserializer=m.ModelInferResponse.FromString)
        asked = m.ModelInferRequest(model_name="intent")
        asked.inputs.add(name="text", datatype="BYTES", shape=[2]).contents.bytes_contents.extend(["天气".encode(), b"hello"])
        answer = infer(asked, metadata=(("authorization", f"Bearer {key}"),), timeout=10)
        labels = [v.decode() for v in answer.outputs[0].contents.bytes_contents]
        print(json.dumps({"labels": labels, "services": services, "raw": bool(answer.raw_output_contents)}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
