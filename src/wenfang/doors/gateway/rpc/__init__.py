"""gRPC beside HTTP: the Open Inference Protocol on a port of its own, in the gateway's process. Found only where grpcio is installed."""

from .server import RPC, open_rpc

__all__ = ["RPC", "open_rpc"]
