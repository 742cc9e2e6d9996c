"""The port of the blobs over one folder of a test."""

import hashlib
from pathlib import Path

from wenfang.core.errors import Broken, NotFound


class FolderBlobs:
    """The port of the blobs over one folder; content addressed, checked when read."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def put(self, data):
        name = hashlib.sha256(data).hexdigest()
        (self.folder / name).write_bytes(data)
        return name

    def put_file(self, path):
        return self.put(Path(path).read_bytes())

    def put_chunks(self, chunks):
        return self.put(b"".join(chunks))

    def get(self, name):
        if not self.has(name):
            raise NotFound("blob.missing", blob=name)
        data = (self.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != name:
            raise Broken("blob.damaged", blob=name)
        return data

    def fetch(self, name, to):
        Path(to).write_bytes(self.get(name))

    def has(self, name):
        return (self.folder / name).is_file()
