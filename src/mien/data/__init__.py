"""Faces in memory: reading, splitting, drawing. Imports no torch."""

from mien.data.drawn import draw_faces
from mien.data.faceset import CLASSES, FaceSet
from mien.data.read import read, read_to_store
from mien.data.splits import Roles, roles

__all__ = ["CLASSES", "FaceSet", "Roles", "draw_faces", "read", "read_to_store", "roles"]
