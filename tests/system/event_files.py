"""TensorBoard's event files, read without TensorBoard and without a line of what writes them.

Framing: uint64 length, masked CRC-32C of it, data, masked CRC-32C of the data, little-endian. The data is an Event in
protobuf's wire format, of which only the fields used here are known: step 2, file_version 3, summary 5, session_log 7;
Summary.Value: tag 1, simple_value 2, image 4, histo 5, tensor 8.
"""
import collections
import pathlib
import struct

Point = collections.namedtuple("Point", "step kind value")


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _crc_table()


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data, torn_end=False):
    """The records; a torn last one is left out where that is expected, of a run that was just killed."""
    position = 0
    while position < len(data):
        if torn_end and (position + 12 > len(data) or
                         position + 16 + struct.unpack_from("<Q", data, position)[0] > len(data)):
            return
        length, crc = struct.unpack_from("<QI", data, position)
        assert crc == masked_crc32c(data[position:position + 8]), f"the length at {position} is damaged"
        record = data[position + 12:position + 12 + length]
        (crc,) = struct.unpack_from("<I", data, position + 12 + length)
        assert crc == masked_crc32c(record), f"the record at {position} is damaged"
        yield record
        position += 16 + length


def fields(message):
    """{number: [values]}: integers, floating-point numbers or bytes."""
    found, position = {}, 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 2:
            length = varint()
            value = message[position:position + length]
            position += length
        else:
            code, size = {1: ("<d", 8), 5: ("<f", 4)}[key & 7]
            (value,) = struct.unpack_from(code, message, position)
            position += size
        found.setdefault(key >> 3, []).append(value)
    return found


class Events:
    """All points of a folder, by tag, in the order in which TensorBoard reads them."""

    def __init__(self, folder, torn_end=False):
        self.files = sorted(pathlib.Path(folder).glob("*tfevents*"))
        self.starts = []  # Steps of the SessionLog START records.
        self.points = collections.defaultdict(list)
        for file in self.files:
            for index, record in enumerate(records(file.read_bytes(), torn_end)):
                event = fields(record)
                assert (index == 0) == (event.get(3) == [b"brain.Event:2"]), f"{file}: its first record is its version"
                step = event.get(2, [0])[0]
                if 7 in event:
                    assert index == 1 and fields(event[7][0]) == {1: [1]}, event
                    self.starts.append(step)
                for value in fields(event[5][0]).get(1, []) if 5 in event else []:
                    self._add(step, fields(value))

    def _add(self, step, value):
        (kind,) = [kind for kind in (2, 4, 5, 8) if kind in value]
        name = {2: "scalar", 4: "picture", 5: "histogram", 8: "text"}[kind]
        content = value[kind][0] if kind == 2 else fields(value[kind][0])
        self.points[value[1][0].decode()].append(Point(step, name, content))

    def steps(self, tag):
        return [point.step for point in self.points[tag]]

    def scalars(self, tag):
        """[(step, float32)]"""
        assert all(point.kind == "scalar" for point in self.points[tag]), tag
        return [(point.step, point.value) for point in self.points[tag]]


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]
