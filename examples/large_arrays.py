"""Blur an image of 64 MB on several machines: arrays go there and back as they lie in memory.

    python examples/large_arrays.py

It needs numpy here as well. Large arrays are sent from where they lie, to each node once however many
calls share them; what comes back lies in a file that is mapped. No copy is made on either side.
"""

from typing import TYPE_CHECKING

import numpy as np

import skyward as sky

if TYPE_CHECKING:
    from numpy.typing import NDArray

    type Image = NDArray[np.float32]

SIDE = 4096
STRIPES = 4


def smooth(image: "Image", stripe: int) -> "Image":
    """One stripe of the image, each pixel the mean of itself and its neighbours above and below."""
    rows = SIDE // STRIPES
    begin, end = stripe * rows, (stripe + 1) * rows
    padded = np.pad(image[max(0, begin - 1) : end + 1], ((begin == 0, end == SIDE), (0, 0)), mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / np.float32(3)


def main() -> None:
    """Send the whole image once to each node, and get it back in stripes."""
    image = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
    blur = sky.function(smooth)
    with sky.Compute(provider=sky.Local(), nodes=2, image=sky.Image(pip=["numpy"])) as pool:
        blurred = np.vstack(sky.gather(*[blur(image, stripe) for stripe in range(STRIPES)]) >> pool)
    print(f"{image.nbytes / 1e6:.0f} MB: deviation {image.std():.3f} before, {blurred.std():.3f} after")


if __name__ == "__main__":
    main()
