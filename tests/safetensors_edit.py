"""Reading and changing safetensors files byte by byte, for tests that break them on purpose."""
import json
import struct


class File:
    """A safetensors file in memory: header (a dict) and data (a bytearray)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            raw = f.read()
        (n,) = struct.unpack("<Q", raw[:8])
        self.header, self.data = json.loads(raw[8 : 8 + n]), bytearray(raw[8 + n :])

    def write(self, path, header_text=None, header_length=None):
        """header_text and header_length replace what would be right."""
        text = json.dumps(self.header).encode() if header_text is None else header_text
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text) if header_length is None else header_length))
            f.write(text)
            f.write(self.data)

    def config(self, **changes):
        """Changes keys of the sidecar's configuration; None removes one."""
        config = json.loads(self.header["__metadata__"]["config"])
        config.update(changes)
        config = {k: v for k, v in config.items() if v is not None}
        self.header["__metadata__"]["config"] = json.dumps(config)

    def fill(self, name, value):
        """Sets every element of a tensor of dtype F32, F16 or BF16."""
        tensor = self.header[name]
        begin, end = tensor["data_offsets"]
        one = {
            "F32": lambda: struct.pack("<f", value),
            "F16": lambda: struct.pack("<e", value),
            "BF16": lambda: struct.pack("<f", value)[2:],
        }[tensor["dtype"]]()
        self.data[begin:end] = one * ((end - begin) // len(one))

