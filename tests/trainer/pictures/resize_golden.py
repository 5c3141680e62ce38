#!/usr/bin/python3
"""Writes resize_golden.h: what Pillow and torchvision make of a few pictures, for resize_test.cc.

    python3 tests/trainer/pictures/resize_golden.py > tests/trainer/pictures/resize_golden.h

Needs Pillow and torchvision; the test needs neither.
"""

import PIL
import torchvision
from PIL import Image
from torchvision import transforms

# (what, input width, height, output width, height, shorter side or 0 to stretch)
CASES = [
    ("a crop of a shrunk wide picture", 50, 37, 16, 16, 18),
    ("a crop of a shrunk tall picture, the rest odd", 31, 64, 12, 12, 15),
    ("a crop of another shape", 60, 41, 14, 9, 20),
    ("a crop of an enlarged picture", 9, 7, 14, 14, 15),
    ("stretched, smaller", 50, 37, 11, 17, 0),
    ("stretched, larger one way only", 20, 40, 30, 10, 0),
]


def picture(width, height):
    """The same as TestPicture() in resize_test.cc."""
    made = bytes((x * x * 3 + y * (5 + x) + c * 85 + (x * y) // 7) % 256
                 for y in range(height) for x in range(width) for c in range(3))
    return Image.frombytes("RGB", (width, height), made)


def main():
    print("// Written by resize_golden.py with Pillow %s and torchvision %s."
          % (PIL.__version__, torchvision.__version__.split("+")[0]))
    print("#pragma once\n\n#include <array>\n#include <cstdint>\n#include <vector>\n")
    print("namespace lockstep::trainer {\n")
    print("struct ResizeGolden {\n  const char* what;\n  int old_width, old_height, width, height, shorter_side;")
    print("  std::vector<uint8_t> pixels;\n};\n")
    print("inline std::vector<ResizeGolden> ResizeGoldens() {\n  return {")
    for what, old_width, old_height, width, height, shorter in CASES:
        image = picture(old_width, old_height)
        if shorter:
            image = transforms.CenterCrop((height, width))(transforms.Resize(shorter)(image))
        else:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        print('{"%s", %d, %d, %d, %d, %d, {%s}},'
              % (what, old_width, old_height, width, height, shorter, ", ".join(map(str, image.tobytes()))))
    print("  };\n}\n\n}  // namespace lockstep::trainer")


if __name__ == "__main__":
    main()
