"""What the server answers, as its description (OpenAPI) shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class AttentionMap(BaseModel):
    """Where the model looked."""

    box: tuple[float, float, float, float] = Field(
        description="x, y, width and height of the square that the map covers, in pixels of the "
        "picture; it may reach outside"
    )
    tilt: float = Field(description="degrees that it is turned about its middle, clockwise")
    map: list[list[float]] = Field(description="rows of weights, 0 to 1")


class FaceFound(BaseModel):
    """A face and its expression as people would label it, which is not what the person feels."""

    box: tuple[int, int, int, int] = Field(description="x, y, width and height in pixels")
    label: str = Field(description="the class with the largest probability")
    probabilities: dict[str, float] = Field(description="of each class, summing to 1")
    detection: float | None = Field(description="the detector's score, 0 to 1, if it found the box")
    known: bool = Field(description="false where the model had better not say")
    tilt: float = Field(description="degrees that the face is turned, clockwise; 0: hardly")
    attention: AttentionMap | None = Field(description="null unless ?attention=true")


class PictureSeen(BaseModel):
    """A picture and its faces; no face is an empty list."""

    name: str
    width: int
    height: int
    faces: list[FaceFound]


class Prediction(BaseModel):
    """The pictures of a request in their order."""

    model: str
    images: list[PictureSeen]


class Model(BaseModel):
    """A model and what comes with it."""

    name: str
    classes: list[str]
    size: int = Field(description="side of the crops it takes, in pixels")
    channels: int = Field(description="1 for grey, 3 for RGB")
    detector: str = Field(description="what finds faces; 'none' takes each picture as one face")
    attention: str | None = Field(description="what the attention map is; null: it has none")
    metadata: dict[str, str] = Field(description="all that the model's file says of itself")


class Models(BaseModel):
    """The models that are served, and the limits of a request."""

    models: list[Model]
    limits: dict[str, float]


class Problem(BaseModel):
    """Why a request is refused (RFC 9457)."""

    title: str
    status: int
    detail: str = Field(description="which picture, what is wrong, what to do")
    image: int | None = Field(default=None, description="number of the picture, from 0")


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "one or more files: JPEG, PNG, WebP, BMP or GIF",
                        },
                        "boxes": {
                            "type": "string",
                            "description": "JSON: for each picture a list of [x, y, width, "
                            "height], or null to have faces found",
                        },
                    },
                    "required": ["images"],
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "contentEncoding": "base64"},
                            "description": "one or more files, each as base64",
                        },
                        "boxes": {
                            "type": "array",
                            "description": "for each picture a list of [x, y, width, height], or "
                            "null to have faces found",
                            "items": {
                                "type": ["array", "null"],
                                "items": {
                                    "type": "array",
                                    "items": {"type": "number"},
                                    "minItems": 4,
                                    "maxItems": 4,
                                },
                            },
                        },
                    },
                    "required": ["images"],
                    "additionalProperties": False,
                }
            },
        },
    }
}
"""The body of a prediction, which is parsed by hand: memory only, and counted."""
