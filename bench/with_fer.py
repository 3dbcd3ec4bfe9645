"""What the package `fer` says of faces, and how long it takes; run by `others.py` where that is.

    python with_fer.py FACES.npz ANSWERS.npz

FACES has `images`, uint8 ``[N, H, W]``. ANSWERS has, for its model in TensorFlow Lite and for the
one in Keras, probabilities ``[N, 7]`` in the order of FER-2013 and the seconds of each face.
"""

import sys
import time
from importlib.metadata import version

import cv2
import numpy as np
from fer.fer import FER

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

images = np.load(sys.argv[1])["images"]
left = {"versions": [f"{name} {version(name)}" for name in ("fer", "tensorflow")]}
for name, lite in (("lite", True), ("keras", False)):
    # Without its margin of 10 pixels: a face of FER-2013 fills its picture.
    recogniser = FER(use_tflite=lite, offsets=(0, 0))
    probabilities, seconds = [], []
    for image in images:
        picture, box = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), (0, 0, *image.shape[::-1])
        began = time.perf_counter()
        (found,) = recogniser.detect_emotions(picture, face_rectangles=[box])
        seconds.append(time.perf_counter() - began)
        probabilities.append([found["emotions"][label] for label in CLASSES])
    rounded = np.array(probabilities)  # to two digits, which need not add up to 1
    left[f"{name}_probabilities"] = rounded / rounded.sum(1, keepdims=True)
    left[f"{name}_seconds"] = np.array(seconds)
np.savez(sys.argv[2], **left)
