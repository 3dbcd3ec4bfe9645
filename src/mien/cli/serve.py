"""The command that answers over HTTP: serve."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from mien.cli.app import Views, app, next_step, settings_given
from mien.errors import MienError


@app.command()
def serve(
    run: Annotated[
        Path | None,
        typer.Option(help="A run folder or an exported .onnx file. Default: the packaged model."),
    ] = None,
    detector: Annotated[
        str, typer.Option(help="What finds faces; 'none' takes each picture as one face.")
    ] = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="MIEN_TOKEN", help="Answer only those who send it as a bearer token."),
    ] = None,
    views: Views = None,
    threads: Annotated[int, typer.Option(help="Of the model; 0 takes every core.", min=0)] = 0,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A limit: body_mb, images, boxes, megapixels, seconds, queue, memory_mb, batch, "
            "wait_ms.",
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP, with a page to try it, until Ctrl-C. Nothing is stored.

    Example: mien serve --port 8000

    Then: curl -F images=@photo.jpg http://127.0.0.1:8000/v1/predict
    """
    try:
        from mien import server
        from mien.server.batching import BATCHES
        from mien.server.listen import is_loopback
    except ModuleNotFoundError as error:
        raise MienError(f"a server needs {error.name}: pip install 'mien[serve]'") from error
    from mien.inference import load

    bounds = server.Limits.from_text(settings_given(limits))
    classifier = load(run, detector=detector, threads=threads, views=views)
    if not token and not is_loopback(host):
        print(
            f"warning: whoever reaches {host} may ask this server; give a --token, or MIEN_TOKEN",
            file=sys.stderr,
        )

    def started(url: str) -> None:
        finder = classifier.detector.name if classifier.detector else "nobody"
        print(f"serving {classifier.name}, faces found by {finder}, at {url} (Ctrl-C stops it)")
        next_step(f"open {url}, or: curl -F images=@photo.jpg {url}v1/predict")
        sys.stdout.flush()

    server.serve(classifier, host, port, bounds, token, started)
    print("stopped; nothing was kept", flush=True)
    others = set(threading.enumerate()) - {threading.main_thread()}
    if any(not thread.daemon or thread.name == BATCHES for thread in others):
        os._exit(0)  # a picture that nobody waits for any more is still being decoded
