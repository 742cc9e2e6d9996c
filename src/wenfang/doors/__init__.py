"""How the world comes in: the gateway's protocols, the control plane over HTTP, the command line, the Python client."""
