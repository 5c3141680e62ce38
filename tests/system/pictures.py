"""Pictures for the system tests, written with the standard library only."""
import pathlib
import random
import struct
import zlib


def png(width, height, pixel):
    """An RGB PNG; pixel(x, y) gives (red, green, blue)."""
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in pixel(x, y)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def spot(size, share, color, seed):
    """A noisy dark picture with a disc that covers `share` of the width."""
    noise = random.Random(seed)
    x0, y0 = (size * noise.uniform(0.4, 0.6) for _ in range(2))
    radius = size * share / 2

    def pixel(x, y):
        inside = (x - x0) ** 2 + (y - y0) ** 2 < radius ** 2
        return tuple(min(255, (c if inside else 40) + noise.randrange(30)) for c in color)
    return png(size, size, pixel)


COLORS = {"blue": (40, 40, 220), "green": (40, 220, 40), "red": (220, 40, 40)}


def class_folders(folder, per_class, size=32):
    """folder/CLASS/*.png, a colour each."""
    for number, (name, color) in enumerate(sorted(COLORS.items())):
        (pathlib.Path(folder) / name).mkdir(parents=True)
        for i in range(per_class):
            (pathlib.Path(folder) / name / f"{i:03}.png").write_bytes(spot(size, 0.5, color, 1000 * number + i))


def diameters(folder, count, size=32):
    """folder/labels.csv: pictures of discs and how many millimetres across they are (10 to 90)."""
    folder = pathlib.Path(folder)
    (folder / "pictures").mkdir(parents=True)
    lines = ["path,millimetres"]
    for i in range(count):
        share = 0.1 + 0.8 * ((i * 37) % count) / count
        (folder / "pictures" / f"{i:03}.png").write_bytes(spot(size, share, (200, 200, 200), i))
        lines.append(f"pictures/{i:03}.png,{100 * share:.2f}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"
